"""One system call an answer: the writes of one turn of the event loop go out together.

Uvicorn writes an answer's head and body separately, and the transports of asyncio and of uvloop
send every write at once or as a buffer of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

HELD_BYTES = 65_536
"""Bytes that are held at most before they are passed on. It is the high-water mark of asyncio's
transports, so that an answer in many parts is paused as early as without the holding."""

Buffer = bytes | bytearray | memoryview


class GatheringTransport(asyncio.Transport):
    """Passes everything on to `transport`, the writes of one turn as one.

    A peer that does not read what is there is hung up on: it takes memory, also after `close`,
    which waits until it is read. Every `stall_seconds` it must have read something, as far as the
    system tells: that has a buffer of its own, and tells of about a megabyte at once. So one that
    reads nothing is hung up on after one or two of these periods, and one that reads very slowly
    may be too.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        stall_seconds: float = 60.0,
    ) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._stall_seconds = stall_seconds
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._passed_on = 0
        """Bytes that were ever passed on."""
        self._watch: asyncio.TimerHandle | None = None
        """What looks again whether the peer reads, while something waits for it."""

    def write(self, data: Buffer) -> None:
        if not data:
            return
        if not self._held:
            self._loop.call_soon(self.flush)
        self._held.append(bytes(data))  # a copy only of what the caller could change
        self._held_bytes += len(data)
        if self._held_bytes > HELD_BYTES:
            self.flush()

    def write_whole(self, data: bytes) -> None:
        """Write what nothing else of this turn follows, at once if nothing is held."""
        if self._held:
            self.write(data)
        else:
            self._pass_on(data)

    def writelines(self, list_of_data: Iterable[Buffer]) -> None:
        self.write(b"".join(list_of_data))

    def flush(self) -> None:
        """Pass on what is held; nothing of it when the peer has gone meanwhile."""
        held, self._held, self._held_bytes = self._held, [], 0
        if held:
            self._pass_on(b"".join(held))

    def _pass_on(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._passed_on += len(data)
            self._transport.write(data)
            if self._watch is None:
                self._look_again(-1)

    def _look_again(self, read_before: int) -> None:
        """Hang up where the peer has read no more than before; look later where it has not all."""
        self._watch = None
        waits = self._transport.get_write_buffer_size()
        if not waits:
            return
        if self._passed_on - waits <= read_before:
            self.abort()
        else:
            read = self._passed_on - waits
            self._watch = self._loop.call_later(self._stall_seconds, self._look_again, read)

    def write_eof(self) -> None:
        self.flush()
        self._transport.write_eof()

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def abort(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        self._held, self._held_bytes = [], 0
        self._transport.abort()

    def get_write_buffer_size(self) -> int:
        return self._held_bytes + self._transport.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._transport.get_write_buffer_limits()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._transport.set_write_buffer_limits(high, low)

    def can_write_eof(self) -> bool:
        return self._transport.can_write_eof()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def is_reading(self) -> bool:
        return self._transport.is_reading()

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._transport.set_protocol(protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._transport.get_protocol()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)
