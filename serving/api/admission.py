"""How much a process has in hand at once. What is more is refused, which costs less to do.

Without a bound a server that is asked for more than it can answers each request later than the one
before, until all are answered too late. Connections without a request do not count. A request whose
body is still to come is counted by itself: clients that send slowly take no place from others. All
bodies together are bounded too: one may have 256 KB, and most have less than one.
"""

from __future__ import annotations

from serving.errors import Overloaded

MOST_BYTES = 64_000_000
"""Bytes of all bodies in hand, as they came or, once that is done, as they were decoded."""


class Admission:
    """Counts requests; `most` may be answered at once, and of as many bodies may be awaited.

    Once their bodies have `most_bytes` no other request is taken.
    """

    def __init__(self, most: int, most_bytes: int = MOST_BYTES) -> None:
        self.most = most
        self.most_bytes = most_bytes
        self.answering = 0
        self.receiving = 0
        self.held_bytes = 0
        """Bytes of the bodies of both."""
        self.refused = 0
        """Requests that were refused, since the start."""

    @property
    def is_full(self) -> bool:
        """Whether no request more may be answered."""
        return self.answering >= self.most or self.held_bytes >= self.most_bytes

    def refuse(self) -> Overloaded:
        """What the client is told; it is counted.

        It is a new one each time: raised again, an exception keeps what it was raised in before.
        """
        self.refused += 1
        has = f"{self.most} requests"
        if self.held_bytes >= self.most_bytes:
            has = f"{self.most_bytes // 1_000_000} MB of requests"
        return Overloaded(
            f"the server has {has} in hand, which is its limit: ask again later, or let more "
            "processes serve"
        )
