"""Heads of requests that were parsed before: a client sends the same one again and again.

What a head means follows from its bytes alone. One that the parser took when it came first is kept
by them, and need not be parsed when it comes again. Only the id of a request, which each has for
itself, is taken out before: any other sane one in the same place is parsed in the same way.
"""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

from serving.api.memo import Memo
from serving.api.request_ids import is_sane

END = b"\r\n\r\n"
ID_LINES = (b"\r\nX-Request-Id: ", b"\r\nx-request-id: ", b"\r\nX-Request-ID: ")
"""How clients begin the line with the id of a request."""

LONGEST_HEAD = 2_048
"""Bytes of a head that is kept."""

MOST_BYTES = 2_000_000
"""Bytes of all that are kept, about."""

BYTES_BESIDE_HEAD = 800
"""What is kept of a head takes so much beside it, about."""

T = TypeVar("T")


class SplitHead(NamedTuple):
    """The bytes of a head without the id of its request."""

    text: bytes
    id: bytes | None
    size: int
    """Bytes of the head as it came."""


def split(data: bytes) -> SplitHead | None:
    """The head of a request that begins with `data`, None where it is not whole, or is long."""
    end = data.find(END, 0, LONGEST_HEAD) + len(END)
    if end < len(END):
        return None
    for line in ID_LINES:
        begin = data.find(line, 0, end)
        if begin >= 0:
            begin += len(line)
            stop = data.index(b"\r", begin)
            return SplitHead(data[:begin] + data[stop:end], data[begin:stop], end)
    return SplitHead(data[:end], None, end)


class KnownHeads(Generic[T]):
    """What is known of requests, by their heads."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._known: Memo[bytes, tuple[int, T]] = Memo(most_bytes)

    def find(self, data: bytes) -> tuple[T, bytes | None, bytes] | None:
        """What is known of the one request that `data` is, its id, and its body.

        None where it is not known, is not whole, or is not all of `data`.
        """
        head = split(data)
        if head is None:
            return None
        known = self._known.get(head.text)
        if known is None or len(data) != head.size + known[0]:
            return None
        if head.id is not None and not is_sane(head.id):
            return None
        return known[1], head.id, data[head.size :]

    def keep(self, head: SplitHead, body_bytes: int, known: T) -> None:
        """Keep what is known of requests with a head, whose bodies have so many bytes."""
        if head.text not in self._known:
            self._known.keep(head.text, (body_bytes, known), len(head.text) + BYTES_BESIDE_HEAD)
