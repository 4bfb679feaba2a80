"""What can go wrong between a topic and a store."""

from __future__ import annotations


class PipelineError(Exception):
    """Any error of the pipeline."""


class StoreUnavailable(PipelineError):
    """The store did not answer, or refused for a reason that passes. Wait, and try again."""


class ParityViolation(PipelineError):
    """A row that is stored differs from the row computed anew for the same tick."""

    def __init__(self, entity: str, event_time: int, sequence: int) -> None:
        super().__init__(
            f"the stored row of {entity!r} at {event_time} ns, sequence {sequence}, has other bits "
            "than the row computed now; nothing was overwritten. Was its history changed by hand, "
            "or is this a replay of a topic that is not the one these rows came from?"
        )
