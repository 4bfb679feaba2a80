"""Which mistakes can change machine code; for all others it is compiled once, and kept.

The program keeps machine code under a digest of all sources (`pipelines.runtime.machine_code`), as
any of them may define a constant that compiled code names. So each mistake would have the tests
compile everything again, which takes longer than most tests. A copy of the repository takes the
digest of the sources without the mistake instead, where the mistake is in a file that no module
with compiled functions imports, directly or through others.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ("pipelines", "registry")
FILE = "pipelines/runtime/machine_code.py"
OWN_SOURCES = "for package in (PACKAGE, *map(Path, registry.__path__)):"
COMPILES = "pipelines.runtime.machine_code"


def compiled_sources(root: Path) -> frozenset[str]:
    """The files, by their paths in the repository, of which machine code can be made."""
    imports = {
        str(file.relative_to(root)): list(_imported(root, file))
        for package in PACKAGES
        for file in (root / package).rglob("*.py")
    }
    waiting = [file for file, imported in imports.items() if FILE in imported]
    found: set[str] = set()
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            waiting += imports[file]
    return frozenset(found)


def with_digest_of(root: Path, source: str) -> str:
    """The module of machine code, with the digest of the sources in `root` in place of its own."""
    of_root = ", ".join(f"Path({str(root / package)!r})" for package in PACKAGES)
    assert source.count(OWN_SOURCES) == 1, f"{FILE} takes its digest in another way"
    return source.replace(OWN_SOURCES, f"for package in ({of_root}):")


def _imported(root: Path, file: Path) -> Iterator[str]:
    """The files of the two packages that a module imports."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports from where it is itself"
            assert node.module is not None
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            path = root / name.replace(".", "/")
            for candidate in (path.with_suffix(".py"), path / "__init__.py"):
                if name.split(".")[0] in PACKAGES and candidate.is_file():
                    yield str(candidate.relative_to(root))
