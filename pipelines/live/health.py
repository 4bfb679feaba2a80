"""What a worker is waiting for: one object, which the threads of the worker write and read."""

from __future__ import annotations

from collections.abc import Iterable

from pipelines.errors import BrokerUnavailable, StoreUnavailable
from pipelines.live.materializer import Materializer
from pipelines.runtime.patience import Patience


class Health:
    """Each attribute is written by one thread; any thread may read `error`.

    `sink` is the name of the worker's store, "online" or "offline".
    """

    def __init__(self, sink: str) -> None:
        self.starting = Patience(
            "a service that the worker needs to start", (StoreUnavailable, BrokerUnavailable)
        )
        self.positions = Patience(f"the {sink} store")
        """The look-up of positions in the store, when partitions are assigned."""

        self.rebuild: str | None = None
        """The progress of a rebuild of Redis from Postgres; None while none is under way."""

        self.topics_error: str | None = None
        """Why the topics could not be looked up; None once they could."""

        self.materializers: Iterable[Materializer] = ()

        self.partitions: dict[str, int] = {}
        """The number of partitions of each topic that is read; empty before they are known."""

    @property
    def error(self) -> str | None:
        """Why the worker makes no progress, None while it does."""
        if self.rebuild is not None:
            return "; ".join(filter(None, (self.rebuild, self.starting.refusal)))
        return (
            self.starting.reason
            or self.positions.reason
            or next((m.retrying for m in self.materializers if m.retrying), None)
            or self.topics_error
        )
