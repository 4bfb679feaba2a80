"""Texts that were made before, kept within a bound: what clients ask decides how many there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from serving.features.columns import NO_TIME
from serving.features.times import to_rfc_3339

K = TypeVar("K")
V = TypeVar("V")

ENTRY_BYTES = 200
"""What an entry takes beside its own bytes, roughly: the objects, and its place in the table."""


class Memo(dict[K, V]):
    """A dictionary of about `most_bytes`; it begins anew when it is full.

    Reads are the dictionary's own, the fastest there are. What is asked often is soon kept again.
    """

    def __init__(self, most_bytes: int) -> None:
        super().__init__()
        self._most = most_bytes
        self._bytes = 0

    def keep(self, key: K, value: V, size: int) -> V:
        """Keep a value under a key, both together of `size` bytes; returns the value."""
        self._bytes += size + ENTRY_BYTES
        if self._bytes > self._most:
            self.clear()
            self._bytes = size + ENTRY_BYTES
        self[key] = value
        return value


class TimeTexts:
    """Event times as JSON texts, each with the same end behind it; `NO_TIME` is null."""

    def __init__(self, end: bytes = b"") -> None:
        self._end = end
        self._texts: Memo[int, bytes] = Memo(8_000_000)

    def __call__(self, nanoseconds: int) -> bytes:
        """The text of a time."""
        return self._texts.get(nanoseconds) or self._make(nanoseconds)

    def each(self, times: Sequence[int]) -> list[bytes]:
        """The texts of times."""
        texts: list[bytes] | list[bytes | None] = list(map(self._texts.get, times))
        if not all(texts):
            return [text or self._make(time) for text, time in zip(texts, times, strict=True)]
        return texts  # type: ignore[return-value]

    def _make(self, nanoseconds: int) -> bytes:
        if nanoseconds == NO_TIME:
            return b"null" + self._end
        text = b'"%b"%b' % (to_rfc_3339(nanoseconds).encode(), self._end)
        return self._texts.keep(nanoseconds, text, len(text))
