"""What can go wrong with a load of files into history; each message names the way out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from pipelines.errors import PipelineError

SHOWN = 5
"""Differences that an error names."""


class LoadMoved(PipelineError):
    """Another process has moved a load on."""

    def __init__(self, load: str, partition: int, offset: int) -> None:
        super().__init__(
            f"{load}: partition {partition} is not at offset {offset} any more: does another "
            "process load the same files? Run the same command again: it goes on where the rows end"
        )


class LoadElsewhere(PipelineError):
    """Another process loads ticks of the same source."""

    def __init__(self, source: str) -> None:
        super().__init__(
            f"another process loads ticks of {source} now, and two loads cannot be compared with "
            "each other while both are stored: run this one when that is done"
        )


class LoadUnfinished(PipelineError):
    """A load of ticks of the same time was begun, and is not done."""

    def __init__(self, source: str, files: Sequence[str], began_by: str, load: str) -> None:
        super().__init__(
            f"a load of {source} that {began_by} has begun is not finished, and its ticks are of "
            "the same time: what of them is not stored yet cannot be compared. Run its command "
            f"again, with the same files ({', '.join(files[:SHOWN])}), and this one when it is "
            f"done, or give it up, by `tickwell replay --forget {load}`"
        )


class LoadForgotten(PipelineError):
    """A load is being given up."""

    def __init__(self, load: str) -> None:
        super().__init__(
            "these files were being loaded, and that load is given up, but not all of its rows are "
            f"gone: run `tickwell replay --forget {load}` again, and this when it is done"
        )


class LoadFinished(PipelineError):
    """A load that is done cannot be given up."""

    def __init__(self, source: str, began_by: str) -> None:
        super().__init__(
            f"that load of {source}, begun by {began_by}, is done: training sets, other loads and "
            "backfills may be made of its ticks, so it stays. Only a load that was not finished "
            "can be given up"
        )


class LoadBackfilled(PipelineError):
    """A load has ticks of which a backfill may have computed values."""

    def __init__(self, source: str, refs: Sequence[str]) -> None:
        super().__init__(
            f"since that load of {source} began, {', '.join(refs[:SHOWN])} "
            f"{'was' if len(refs) == 1 else 'were'} backfilled, also of its ticks, and these "
            "values would be taken for those of other ticks: it can only be finished, by its "
            "command. Nothing was changed"
        )


class LoadInLakeAlone(PipelineError):
    """The lake may have rows of a load on days that Postgres has let go of."""

    def __init__(self, source: str, first: date, last: date) -> None:
        super().__init__(
            f"Postgres has let go of days of {source} between {first} and {last}, and the files of "
            "the lake, which may have rows of that load, are all that is left of them: it can only "
            "be finished, by its command. Nothing was changed"
        )


class LoadRulesChanged(PipelineError):
    """A load that was begun is to go on by other rules."""

    def __init__(self, source: str, load: str) -> None:
        super().__init__(
            f"the rules of {source} were changed since this load began, and its ticks would be "
            "decided in two ways: record the rules of before, finish it, and change them again; or "
            f"give it up, by `tickwell replay --forget {load}`"
        )


class NotLoadable(PipelineError):
    """The ticks of a source cannot be loaded, or not in this way."""


class RowsDiffer(PipelineError):
    """Ticks of a load meet other ticks; `differences` are sentences, one an entity."""

    def __init__(self, differences: Sequence[str], ticks: int) -> None:
        shown = "; ".join(differences[:SHOWN])
        more = (
            f"; and {len(differences) - SHOWN:,} entities more" if len(differences) > SHOWN else ""
        )
        super().__init__(
            f"{ticks:,} ticks are not equal to what is stored, of {len(differences):,} entities: "
            f"{shown}{more}. Nothing was stored. A load adds ticks that nobody has, older than all "
            "that Kafka brought of their entity; what is stored is changed by a repair alone"
        )
        self.differences = differences


class MonthBusy(PipelineError):
    """Partitions of the table cannot be attached."""

    def __init__(self, months: Sequence[str]) -> None:
        super().__init__(
            f"{', '.join(months)} cannot be attached, because queries read the table for too long; "
            "nothing was stored. Run the same command again when they are done"
        )
