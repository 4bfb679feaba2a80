"""Requests as Redis takes them over the wire: arrays of bulk strings.

https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from __future__ import annotations

from collections.abc import Sequence


def bulk(text: str | bytes) -> bytes:
    """A text as a bulk string: `b"$3\\r\\nabc\\r\\n"` of `"abc"`."""
    raw = text.encode() if isinstance(text, str) else text
    return b"$%d\r\n%b\r\n" % (len(raw), raw)


def packed(command: Sequence[str | bytes]) -> bytes:
    """A command with its arguments."""
    return b"*%d\r\n%b" % (len(command), b"".join(map(bulk, command)))


def text_of(one: bytes) -> bytes:
    """What a bulk string has in it."""
    return one[one.index(b"\n") + 1 : -2]
