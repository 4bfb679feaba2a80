"""The files that a person names: paths, folders and patterns."""

from __future__ import annotations

from collections.abc import Sequence
from glob import glob
from pathlib import Path

from pipelines.produce.errors import Mistaken


def expand(arguments: Sequence[str]) -> list[Path]:
    """The files that paths, folders and patterns name, each once, in the order of its names.

    Raises `Mistaken` for one that names none, or what cannot be read twice.
    """
    found: dict[Path, Path] = {}
    for argument in arguments:
        path = Path(argument)
        if path.is_dir():
            files = sorted(
                file for file in path.iterdir() if file.is_file() and is_table(file.name)
            )
        elif path.exists():
            if not path.is_file():
                raise Mistaken(
                    f"{argument} is no regular file; produce reads it twice: write it to a file "
                    "first"
                )
            files = [path]
        else:
            files = sorted(file for file in _matching(argument) if file.is_file())
        if not files:
            raise Mistaken(
                f"{argument}: there is no such file, and no file that it could name"
                if not path.is_dir()
                else f"{argument} holds no file whose name ends in {', '.join(ENDINGS)}"
            )
        for file in files:
            found.setdefault(file.resolve(), file)
    return list(found.values())


ENDINGS = (".csv", ".tsv", ".txt", ".parquet")
"""The endings of files that are taken from a folder, also with one of a compression behind."""

COMPRESSED = (".gz", ".zst", ".bz2", ".zip")


def is_table(name: str) -> bool:
    """Whether a file of a folder is read, by its name."""
    lower = name.lower()
    for ending in COMPRESSED:
        lower = lower.removesuffix(ending)
    return lower.endswith(ENDINGS) and not name.startswith(".")


def _matching(pattern: str) -> list[Path]:
    return [Path(name) for name in glob(pattern, recursive=True)]
