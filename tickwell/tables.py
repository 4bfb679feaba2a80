"""Plain tables on a terminal, or as lines of a file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

FILE_WIDTH = 1_000
"""Characters of a line where a program reads it, or a file holds it."""


def show(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows of cells under the names of their columns."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not console.is_terminal:
        console.width = FILE_WIDTH
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*map(Text, row))  # a cell is no markup
    console.print(table)
