"""The list of deliberate mistakes fits the code that it is about."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from pipelines.runtime import machine_code
from tests.mutations.machine_code import compiled_sources, with_digest_of
from tests.mutations.mutation import Mutation, read_mutations
from tests.mutations.report import caught_before, key, report
from tests.mutations.runner import Copy

ROOT = Path(__file__).parents[3]
MUTATIONS = read_mutations()


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.mistake)
def test_a_mistake_can_be_made(mutation: Mutation) -> None:
    """Its text is in the file, once; what replaces it is still Python; its tests exist."""
    mutated = mutation.mutated(ROOT)
    assert mutated != (ROOT / mutation.file).read_text("utf-8")
    if mutation.file.endswith(".py"):
        ast.parse(mutated)
    for test in mutation.tests:
        assert (ROOT / test.partition("::")[0]).exists()


def test_no_mistake_is_listed_twice() -> None:
    made = Counter((mutation.file, mutation.old, mutation.new) for mutation in MUTATIONS)
    assert max(made.values()) == 1


def test_the_page_names_what_caught_a_mistake() -> None:
    first, second, third = MUTATIONS[:3]
    page = report(
        [first, second, third], {key(first): "tests/unit/a.py::test_b[c | d]", key(second): None}
    )
    assert "1 of 3 are caught; 1 were not tried yet." in page
    assert "| `unit/a.py::test_b` |" in page
    assert "| **nothing** |" in page
    assert "| not tried |" in page


def test_a_page_says_what_need_not_be_tried_again() -> None:
    tried: dict[tuple[str, str], str | None] = {key(m): "unit/a.py::test_b" for m in MUTATIONS}
    tried[key(MUTATIONS[3])] = None
    page = report(MUTATIONS, tried)
    caught = caught_before(page)
    assert caught.keys() == tried.keys() - {key(MUTATIONS[3])}
    assert set(caught.values()) == {"unit/a.py::test_b"}
    assert report(MUTATIONS, {**caught, key(MUTATIONS[3]): None}) == page


def git(root: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=root, check=True)


def test_a_mistake_is_made_in_the_copy_alone(tmp_path: Path) -> None:
    """A test that passes on the correct text, fails on the wrong one, and passes again after."""
    root, folder = tmp_path / "root", tmp_path / "copy"
    (root / "tests").mkdir(parents=True)
    (root / "pyproject.toml").write_text("")
    (root / "value.txt").write_text("right")
    test = "def test_value():\n    assert open('value.txt').read() == 'right'\n"
    (root / "tests/test_value.py").write_text(test)
    git(root, "init", "-q")
    copy = Copy(root, folder)
    mutation = Mutation("area", "wrong", "value.txt", "right", "wrong", ["tests/test_value.py"])
    assert copy.first_failure(mutation.tests) is None
    assert copy.try_mutation(mutation).caught_by == "tests/test_value.py::test_value"
    assert copy.first_failure(mutation.tests) is None
    assert (root / "value.txt").read_text() == "right"


def test_machine_code_is_made_of_what_compiled_modules_import() -> None:
    found = compiled_sources(ROOT)
    assert "pipelines/compute/kernel.py" in found
    assert "registry/formats/state.py" in found, "its constants are in machine code"
    assert "pipelines/runtime/machine_code.py" in found
    assert "pipelines/live/materializer.py" not in found
    assert "pipelines/replay/replay.py" not in found


def test_a_copy_takes_the_digest_of_the_sources_without_a_mistake(tmp_path: Path) -> None:
    """So what is compiled for one mistake is there for the next one."""
    module = (ROOT / "pipelines/runtime/machine_code.py").read_text()
    for package in ("pipelines", "registry"):
        shutil.copytree(ROOT / package, tmp_path / package)
    (tmp_path / "pipelines/live/lag.py").write_text("# a mistake")
    command = "from pipelines.runtime.machine_code import digest; print(digest())"

    def digest() -> str:
        run = [sys.executable, "-c", command]
        return subprocess.run(run, cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    own = digest()
    (tmp_path / "pipelines/runtime/machine_code.py").write_text(with_digest_of(ROOT, module))
    assert digest().strip() == machine_code.digest()
    assert own != digest()
