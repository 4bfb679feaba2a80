"""What can go wrong with a load of files into history; each message names the way out."""

from __future__ import annotations

from collections.abc import Sequence

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

    def __init__(self, source: str, files: Sequence[str], began_by: str) -> None:
        super().__init__(
            f"a load of {source} that {began_by} has begun is not finished, and its ticks are of "
            "the same time: what of them is not stored yet cannot be compared. Run its command "
            f"again, with the same files ({', '.join(files[:SHOWN])}), and this one when it is done"
        )


class LoadRulesChanged(PipelineError):
    """A load that was begun is to go on by other rules."""

    def __init__(self, source: str) -> None:
        super().__init__(
            f"the rules of {source} were changed since this load began, and its ticks would be "
            "decided in two ways: record the rules of before, finish it, and change them again"
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
