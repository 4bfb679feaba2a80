"""A rejected tick as a message: its key, its headers, and as much of its value as fits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from uuid import UUID

FRAMING_BYTES = 61 + 5 * 6 + 10
"""Bytes of a batch with one record: its header, and the record's six lengths and time at most."""

HEADER_FRAMING_BYTES = 5 + 5
"""Bytes of a header beside its name and value: their lengths at most."""

DETAIL_BYTES = 1000
"""Bytes of a detail at most; it quotes the message that it is about."""


@dataclass(frozen=True, slots=True)
class RejectedTick:
    """A row of the outbox; `value` is no more than the beginning of the message's `size` bytes.

    `value` and `size` are None where the message had none; `known_at` is nanoseconds since 1970.
    """

    topic_id: str
    partition: int
    offset: int
    index: int
    topic: str
    reason: str
    detail: str
    known_at: int
    value: bytes | memoryview | None
    size: int | None

    @property
    def key(self) -> bytes:
        """The origin of the tick."""
        return f"{self.topic_id}/{self.partition}/{self.offset}/{self.index}".encode()

    @property
    def headers(self) -> list[tuple[str, str | bytes | None]]:
        """What the message says about the tick, by name."""
        detail = self.detail.encode()[:DETAIL_BYTES].decode(errors="ignore")
        headers = {
            "reason": self.reason,
            "detail": detail,
            "topic": self.topic,
            "topic_id": str(UUID(self.topic_id)),
            "partition": str(self.partition),
            "offset": str(self.offset),
            "index": str(self.index),
            "known_at": str(self.known_at),
        }
        if self.size is not None:
            truncated = self.value is None or len(self.value) < self.size
            headers |= {"value_bytes": str(self.size), "truncated": str(truncated).lower()}
        return list(headers.items())

    def fitted(self, limit: int) -> RejectedTick:
        """The tick with as much of its value as a batch of `limit` bytes has room for."""
        if self.value is None:
            return self
        headers = sum(
            HEADER_FRAMING_BYTES + len(name) + len(str(text).encode())
            for name, text in self.headers
        )
        room = limit - FRAMING_BYTES - len(self.key) - headers - len("true")
        return replace(self, value=self.value[:room] if room > 0 else None)
