"""How many requests a process has at once. What is more is refused, which costs less to do.

Without a bound a server that is asked for more than it can answers each request later than the one
before, until all are answered too late. Connections without a request do not count. A request whose
body is still to come is counted by itself: clients that send slowly take no place from others.
"""

from __future__ import annotations

from serving.errors import Overloaded


class Admission:
    """Counts requests; `most` may be answered at once, and of as many bodies may be awaited."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.answering = 0
        self.receiving = 0
        self.refused = 0
        """Requests that were refused, since the start."""
        self._told = (
            f"the server has {most} requests in hand, which is its limit: ask again later, or let "
            "more processes serve"
        )

    def refuse(self) -> Overloaded:
        """What the client is told; it is counted.

        It is a new one each time: raised again, an exception keeps what it was raised in before.
        """
        self.refused += 1
        return Overloaded(self._told)
