"""What the application knows of the process that it runs in."""

from __future__ import annotations

from collections.abc import Sized
from dataclasses import dataclass, field

from serving.metric_sums import Siblings


@dataclass(slots=True)
class ThisProcess:
    """A process of a server. Without `siblings` it is the only one."""

    siblings: Siblings | None = None
    stopping: bool = False
    """Whether the server is about to stop: it still answers, and says that it is not ready."""

    open: Sized = field(default_factory=tuple)
    """The open connections of clients."""

    def connections(self) -> int:
        """How many connections are open."""
        return len(self.open)
