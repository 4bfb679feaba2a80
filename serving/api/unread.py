"""Answers that clients do not read, bounded in bytes for all connections of a process together.

What a client does not take waits in the server's memory. Each answer may have megabytes, and a
client may have any number of connections.
"""

from __future__ import annotations

import logging
from typing import Protocol

logger = logging.getLogger(__name__)

MOST_BYTES = 64_000_000
"""Bytes of answers that may wait for their clients in a process."""

KEPT_SHARE = 0.75
"""The part of that which is left once clients were hung up on."""


class Waiting(Protocol):
    """A connection with something that its client has not taken."""

    def unread_bytes(self) -> int:
        """How many bytes that is."""

    def abort(self) -> None:
        """Hang up, and forget them."""


class Unread:
    """Counts what waits; where it is more than `most` bytes, connections are closed.

    First those that have had something unread for longest. A client that reads a little of it now
    and then is one of them, and one that reads its answers whole is not.
    """

    def __init__(self, most: int = MOST_BYTES) -> None:
        self.most = most
        self.bytes = 0
        self.hung_up = 0
        """Connections that were hung up on for this bound, since the start."""
        self._of: dict[Waiting, int] = {}
        """Bytes of each connection; the one that has had some for longest is first."""

    def count(self, connection: Waiting, waiting: int) -> None:
        """So many bytes of a connection wait now."""
        self._set(connection, waiting)
        if waiting and self.bytes > self.most:
            self._make_room()

    def _set(self, connection: Waiting, waiting: int) -> None:
        before = self._of.get(connection, 0)
        if waiting:
            self._of[connection] = waiting
        elif before:
            del self._of[connection]
        self.bytes += waiting - before

    def _make_room(self) -> None:
        """Count again, as some may have been read since; then hang up."""
        for connection in list(self._of):
            self._set(connection, connection.unread_bytes())
        if self.bytes <= self.most:
            return
        before = self.hung_up
        for connection in list(self._of):
            if self.bytes <= self.most * KEPT_SHARE:
                break
            connection.abort()  # which counts it as 0
            self.hung_up += 1
        logger.warning(
            "%d connections were closed: more than %d bytes of answers waited for clients that do "
            "not read them",
            *(self.hung_up - before, self.most),
        )
