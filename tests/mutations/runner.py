"""Runs tests against a copy of the repository that has one mistake in it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.mutations import machine_code
from tests.mutations.mutation import Mutation

TIMEOUT = 600.0
"""Seconds for the tests of one mutation. A mistake that makes a test hang is caught by pytest's own
timeout long before; this one ends what even that does not."""

FAILED = re.compile(r"^(?:FAILED|ERROR) (tests/\S+?::\S+)", re.MULTILINE)
TESTS_FAILED = 1
"""pytest's exit code when tests ran and some failed; any other but 0 means that none could run."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """`caught_by` is the first test that failed, None where every test passed."""

    mutation: Mutation
    caught_by: str | None


class NotRunnable(Exception):
    """The tests could not be run, so nothing is known about the mutation."""


class Copy:
    """A copy of the files that git tracks, in `folder`, with an environment that imports it.

    Machine code is kept beside `folder`, for all copies that are there.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        self._root = root
        self._folder = folder
        self._environment = {
            **os.environ,
            "PYTHONPATH": str(folder),
            "NUMBA_CACHE_DIR": str(folder.parent / "machine-code"),
            "PYTHONDONTWRITEBYTECODE": "1",  # a mutated file may have the size and time of another
            "HYPOTHESIS_STORAGE_DIRECTORY": str(folder / ".hypothesis"),
        }
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listed, cwd=root, check=True, capture_output=True, text=True).stdout
        for name in filter(None, names.split("\0")):
            source = root / name
            if source.is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, folder / name)
        self._compiled_sources = machine_code.compiled_sources(root)

    def try_mutation(self, mutation: Mutation) -> Outcome:
        """Run the mutation's tests with the mistake in place, then restore the file."""
        changed = {mutation.file: mutation.mutated(self._folder)}
        kept = "machine-code"
        if mutation.file in self._compiled_sources:
            kept = "machine-code-with-mistakes"  # where only the newest few are kept
        elif self._compiled_sources:
            module = (self._folder / machine_code.FILE).read_text("utf-8")
            changed[machine_code.FILE] = machine_code.with_digest_of(self._root, module)
        self._environment["NUMBA_CACHE_DIR"] = str(self._folder.parent / kept)
        originals = {name: (self._folder / name).read_bytes() for name in changed}
        try:
            for name, text in changed.items():
                (self._folder / name).write_text(text, "utf-8")
            return Outcome(mutation, self.first_failure(mutation.tests))
        finally:
            for name, content in originals.items():
                (self._folder / name).write_bytes(content)

    def first_failure(self, tests: Sequence[str]) -> str | None:
        """The first test that fails, None if all pass. Raises `NotRunnable`."""
        options = ("-x", "-q", "-rfE", "--no-header", "-p", "no:cacheprovider")
        if (self._folder / "tests/conftest.py").exists():
            options += ("--hypothesis-profile", "mutations")
        try:
            done = subprocess.run(
                [sys.executable, "-m", "pytest", *options, *tests],
                cwd=self._folder,
                env=self._environment,
                capture_output=True,
                text=True,
                timeout=TIMEOUT,
            )
        except subprocess.TimeoutExpired:
            return f"{tests[0]} (no end within {TIMEOUT:g} s)"
        if done.returncode == 0:
            return None
        found = FAILED.search(done.stdout)
        if found is None or done.returncode != TESTS_FAILED:
            raise NotRunnable(f"{done.stdout[-3000:]}\n{done.stderr[-1000:]}")
        return found[1]
