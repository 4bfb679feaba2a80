"""What the transport requires of a Faust app that reads runs."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import faust
from faust.types import TP

from pipelines.kafka.topic_identity import Incarnations
from registry.source_rules import SourceRules


class RunApp(faust.App):
    """A Faust app that knows its topics' incarnations and the positions of its store."""

    incarnations: Incarnations
    rules: Mapping[str, SourceRules]
    """The rules of the source of each topic."""
    pace: float
    """Seconds from the beginning of one fetch to the next; `FetchPacing` has the exceptions."""

    def watermarks(self, tps: Collection[TP]) -> Mapping[TP, int | None]:
        """The next offset that the store wants of each partition, None from its beginning. Blocks.

        Raises `StoreUnavailable` while the store does not answer.
        """
        raise NotImplementedError

    def may_stall(self, topic: str) -> bool:
        """Whether the source of a topic needs a schema registry."""
        raise NotImplementedError

    def is_stalled(self, topic: str) -> bool:
        """Whether the source of a topic waits for its schema registry."""
        raise NotImplementedError

    def fail(self, error: BaseException) -> None:
        """End the worker: only a restart, or a person, can help. From any thread."""
        raise NotImplementedError

    @property
    def stopping(self) -> bool:
        """Whether the app was requested to stop; a crash does not count."""
        return bool(self._stopped.is_set())

    def _crash(self, reason: BaseException) -> None:
        # Faust only marks its services as crashed and stops them.
        super()._crash(reason)
        self.fail(reason)

    def _create_directories(self) -> None:
        """None: tables would need them, and the app has no tables."""
