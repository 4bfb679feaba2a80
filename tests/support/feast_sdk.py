"""Feast's own SDK, in an environment that is made once and kept, since it pins libraries.

`feast_questions.py` runs there and asks what it is told to.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PLACE = ROOT / "build/feast-sdk"
"""Below `build`, as what is in `tests` is ours."""

REQUIREMENTS = ("feast==0.67.0",)
QUESTIONS = Path(__file__).with_name("feast_questions.py")


def feast_python() -> Path:
    """The interpreter of that environment. Raises `CalledProcessError` when it cannot be made."""
    stamp, python = PLACE / "installed", PLACE / "bin/python"
    digest = hashlib.sha256("\n".join((sys.version, *REQUIREMENTS)).encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return python
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(PLACE)], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *REQUIREMENTS], check=True)
    stamp.write_text(digest)
    return python


class FeastSdk:
    """A process with a `FeatureStore`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, **question: Any) -> Any:
        """The answer to a question of `feast_questions.py`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "Feast's process has ended; its error output is in the test's"
        return json.loads(line)


@contextmanager
def feast_sdk(repository: Path, **environment: str) -> Iterator[FeastSdk]:
    """The SDK over the repository that `tickwell feast export` has written, once it is loaded."""
    process = subprocess.Popen(
        [str(feast_python()), "-I", str(QUESTIONS), str(repository)],
        env={"HOME": str(repository), "TMPDIR": str(repository), **environment},  # it leaves files
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        sdk = FeastSdk(process)
        assert sdk.ask(kind="loaded") == "loaded"
        yield sdk
    finally:
        process.kill()
        process.communicate()
