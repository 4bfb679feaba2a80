"""What is wrong with a file, a row or its order; each message names the way out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pipelines.errors import PipelineError


class Problem(NamedTuple):
    """Why a row is not a tick. Rows are counted from 1, the first one after a CSV's header."""

    row: int
    column: str
    text: str
    cells: Sequence[str] = ()
    """Of a line that has not as many as the table has columns."""

    def __str__(self) -> str:
        column = f", column {self.column}" if self.column else ""
        return f"row {self.row}{column}: {self.text}"


class ColumnMissing(PipelineError):
    """The file has no columns for some fields: the column that each was looked for in."""

    def __init__(
        self,
        file: Path,
        missing: Mapping[str, str],
        keys: Sequence[str],
        existing: Sequence[str],
        hint: str = "",
    ) -> None:
        names = ", ".join(name or f"#{number}" for number, name in enumerate(existing, 1))
        fields = list(missing)
        maps = " ".join(f"--map {field}=COLUMN" for field in fields)
        shared = next((field for field in fields if field in keys), None)
        same = f", or give all rows the same: --set {shared}=VALUE" if shared else ""
        super().__init__(
            f"{file} has no column {', '.join(missing.values())}; it has {names}. Name the "
            f"{'one that holds' if len(fields) == 1 else 'ones that hold'} {', '.join(fields)}: "
            f"{maps}{same}{hint}"
        )


class BadRow(PipelineError):
    """A row is not a tick."""

    def __init__(self, file: Path, problem: Problem, way_out: str = "") -> None:
        super().__init__(f"{file}, {problem}{way_out}")


class NothingToSend(PipelineError):
    """No row is a tick."""


class BadFile(PipelineError):
    """A file cannot be read, from its beginning or from some row on."""

    def __init__(self, file: Path, row: int, error: object) -> None:
        position = f" after row {row}" if row else ""
        super().__init__(f"{file} cannot be read{position}: {' '.join(str(error).split())}")


class Mistaken(PipelineError):
    """What was asked for cannot be meant, or does not fit the file."""


class OutOfOrder(PipelineError):
    """Workers would reject rows as late, because of the order in which they would be sent."""


class CannotSort(PipelineError):
    """The rows cannot be sorted on disk."""

    def __init__(self, directory: Path, error: object) -> None:
        super().__init__(
            f"--sort in {directory}: {' '.join(str(error).split())}. Make room there, or name "
            "another directory by TMPDIR"
        )
