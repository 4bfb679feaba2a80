"""Commands that compare: 0 is alike, 1 is different, and whatever else happens is neither."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import typer

T = TypeVar("T")

STOPPED = 130
NOT_LOOKED = 2


@contextmanager
def looking(stopped: str) -> Iterator[None]:
    """Ends the command with 2 for any error, and with 130 where it was stopped, saying so."""
    from serving.history.stopped import Stopped

    try:
        yield
    except Stopped:
        typer.echo(f"stopped: {stopped}", err=True)
        raise typer.Exit(STOPPED) from None
    except Exception as error:  # whatever it is, 1 would say that something differs
        _say(error)
        raise typer.Exit(NOT_LOOKED) from None


def file_of(training_set: str) -> Path | None:
    """The file that is meant, or None where it is the name of a set that is kept."""
    file = Path(training_set)
    return file if file.exists() or file.suffix or file.name != training_set else None


def _say(error: Exception) -> None:
    """Print the line that a user sees of an error, or the traceback of a defect."""
    from tickwell.cli import message_for

    message = message_for(error)
    if message is None:
        traceback.print_exception(error)
    else:
        typer.echo(f"tickwell: {message}", err=True)


def with_progress_bar(what: str, work: Callable[[Callable[[int, int], None]], T]) -> T:
    """Do work that tells how many rows are done, and of how many."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = what, BarColumn(), MofNCompleteColumn(), "rows", TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=None)
        return work(lambda done, total: bar.update(task, completed=done, total=total))
