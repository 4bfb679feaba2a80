"""How much a process has in hand at once. What is more is refused, which costs less to do.

Without a bound a server that is asked for more than it can answers each request later than the one
before, until all are answered too late. Connections without a request do not count. The bodies of
requests are bounded in bytes, too: one may have 256 KB, and most have less than one. A request
whose body is still to come counts by itself, in both ways: clients that send slowly take no place
from others.
"""

from __future__ import annotations

from serving.errors import Overloaded

MOST_BYTES = 64_000_000
"""Bytes of the bodies of all requests that are answered, and as many of bodies that are awaited."""


class Admission:
    """Counts requests; `most` may be answered at once, and of as many bodies may be awaited.

    Both have bodies of about `most_bytes` at most: those that are answered as they were decoded.
    """

    def __init__(self, most: int, most_bytes: int = MOST_BYTES) -> None:
        self.most = most
        self.most_bytes = most_bytes
        self.answering = self.receiving = 0
        self.answering_bytes = self.receiving_bytes = 0
        self.refused = 0
        """Requests that were refused, since the start."""

    @property
    def is_full(self) -> bool:
        """Whether no request more may be answered."""
        return self.answering >= self.most or self.answering_bytes >= self.most_bytes

    @property
    def is_full_of_awaited(self) -> bool:
        """Whether no body more may be awaited."""
        return self.receiving >= self.most or self.receiving_bytes >= self.most_bytes

    def refuse(self) -> Overloaded:
        """What the client is told; it is counted.

        It is a new one each time: raised again, an exception keeps what it was raised in before.
        """
        self.refused += 1
        return Overloaded(
            f"the server has {self.most} requests in hand, or {self.most_bytes:,} bytes of their "
            "bodies, which is its limit: ask again later, or let more processes serve"
        )
