"""One system call an answer: the writes of one turn of the event loop go out together.

Uvicorn writes an answer's head and body separately, and the transports of asyncio and of uvloop
send every write at once or as a buffer of its own.

A transport of TLS encrypts what it is given at once, and then knows nothing of it any more, whether
it was sent or not. So it gets a piece when the piece before was sent, and the rest stays here.
"""

from __future__ import annotations

import asyncio
import fcntl
import struct
import sys
import termios
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from serving.api.unread import Unread

HELD_BYTES = 65_536
"""Bytes that are held at most before they are passed on. It is the high-water mark of asyncio's
transports, so that an answer in many parts is paused as early as without the holding."""

PIECE_BYTES = 65_536
"""Bytes that a transport of TLS is given at a time."""

BELOW_TLS = 2 * PIECE_BYTES
"""Bytes that may wait below a transport of TLS, which says nothing of them: a piece, and as much as
the transport below takes before it says stop."""

Buffer = bytes | bytearray | memoryview


class GatheringTransport(asyncio.Transport):
    """Passes everything on to `transport`, the writes of one turn as one.

    What the peer has not read is counted in `unread`. A peer that reads nothing for `stall_seconds`
    is hung up on, after one or two of these periods: it takes memory, also after `close`, which
    waits until all is read.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        unread: Unread | None = None,
        stall_seconds: float = 60.0,
    ) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._stall_seconds = stall_seconds
        self._unread = unread or Unread()
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._kept = bytearray()
        """What a transport of TLS is to be given in pieces."""
        self._is_tls = transport.get_extra_info("sslcontext") is not None
        self._closes = False
        """Whether the transport is to be closed once nothing is kept."""
        self._is_lost = False
        self._awaited = 0
        """Bytes that their senders hold until they can be written."""
        self._counted = False
        """Whether some bytes are counted as unread."""
        self._accepted = 0
        """Bytes that were ever flushed."""
        self._below = 0
        """Bytes that TLS was given since all of them were known to be read, up to `BELOW_TLS`."""
        self._watch: asyncio.TimerHandle | None = None
        """What looks whether the peer reads, since something was flushed."""

    def begin(self) -> None:
        """Have the transport say when it has sent what it was given. Its protocol must be ready."""
        if self._is_tls:
            self._transport.set_write_buffer_limits(1, 0)

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
        if self.is_closing():
            return
        if self._counted:
            self._count()  # what was read whole meanwhile does not make this one old
        if self._watch is None:
            self._watch_from(self._accepted)
        self._accepted += len(data)
        if self._is_tls:
            self._kept += data
            self._pass_pieces_on()
        else:
            self._transport.write(data)
        if self._counted or self._is_tls or self.get_write_buffer_size():
            self._count()

    def _pass_pieces_on(self) -> None:
        if self._below and not _in_the_system(self._transport):
            self._below = 0
        while self._kept and not self._transport.get_write_buffer_size():
            piece = bytes(memoryview(self._kept)[:PIECE_BYTES])
            del self._kept[:PIECE_BYTES]
            self._below = min(self._below + len(piece), BELOW_TLS)
            self._transport.write(piece)
        if self._closes:
            self._close_if_empty()

    def sent(self) -> bool:
        """The transport has sent what it was given; whether it may be given more now."""
        self._pass_pieces_on()
        self._count()
        return not self._kept

    @contextmanager
    def awaited(self, size: int) -> Iterator[None]:
        """While bytes wait to be written, for the peer to read others."""
        self._awaited += size
        self._count()
        try:
            yield
        finally:
            self._awaited -= size
            self._count()

    def unread_bytes(self) -> int:
        """How much the peer has not read that is in this process; under TLS it may be less."""
        if self._is_lost:
            return 0
        if self._below and not _in_the_system(self._transport):
            self._below = 0
        return self._awaited + self.get_write_buffer_size() + self._below

    def _count(self) -> None:
        waiting = self.unread_bytes()
        self._counted = bool(waiting)
        self._unread.count(self, waiting)

    def _watch_from(self, read: int) -> None:
        self._watch = self._loop.call_later(self._stall_seconds, self._look, read)

    def _look(self, read_before: int) -> None:
        """Hang up where the peer has read no more than before; look later where it has not all."""
        self._watch = None
        sent = _in_the_system(self._transport)
        # Under TLS these are more bytes than were written: half of them are that many at least.
        waits = self.get_write_buffer_size() + ((sent + 1) // 2 if self._is_tls else sent)
        if self._counted:
            self._count()
        if not waits:
            return
        if self._accepted - waits <= read_before:
            self.abort()
        else:
            self._watch_from(self._accepted - waits)

    def write_eof(self) -> None:
        self.flush()
        self._transport.write_eof()

    def close(self) -> None:
        self.flush()
        if not (self._closes or self._is_lost):
            self._closes = True
            self._close_if_empty()

    def _close_if_empty(self) -> None:
        """Once: asyncio's transport of TLS is of no use after it was closed twice."""
        if not (self._kept or self._transport.is_closing()):
            self._transport.close()

    def abort(self) -> None:
        self._transport.abort()
        self.lost()

    def lost(self) -> None:
        """The connection has ended: nothing of it waits any more."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        self._held, self._held_bytes = [], 0
        self._kept.clear()
        self._is_lost = True
        self._count()

    def get_write_buffer_size(self) -> int:
        if self._is_lost:
            return 0
        return self._held_bytes + len(self._kept) + self._transport.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._transport.get_write_buffer_limits()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._transport.set_write_buffer_limits(high, low)

    def can_write_eof(self) -> bool:
        return self._transport.can_write_eof()

    def is_closing(self) -> bool:
        return self._closes or self._transport.is_closing()

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


def _in_the_system(transport: asyncio.Transport) -> int:
    """Bytes that the peer's system has not acknowledged, 0 where that cannot be known."""
    if sys.platform != "linux":
        return 0
    try:
        found = fcntl.ioctl(transport.get_extra_info("socket"), termios.TIOCOUTQ, bytes(4))
    except (OSError, ValueError):  # it is closed
        return 0
    (size,) = struct.unpack("i", found)
    return int(size)
