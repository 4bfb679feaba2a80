"""Connections of urllib3 on which all that happens ends at one moment.

A time limit of urllib3 is one for connecting and one for each read: a server that sends its answer
byte by byte, the head of it too, is within any. Here the limit that a connection is given is the
time until a moment, and each write and read gets what is left of it.
"""

from __future__ import annotations

import io
import socket
import time
from typing import TYPE_CHECKING, Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import NewConnectionError

from tickwell.client.calls import Call

SHORTEST_SECONDS = 1e-6
"""What a limit that has passed is to a socket, for which 0 would be not to wait at all."""


class Until(urllib3.Timeout):
    """Whatever a request does may take as long as its call has left."""

    def __init__(self, call: Call) -> None:
        super().__init__()
        self._call = call

    def clone(self) -> Until:
        """The same: urllib3 asks for a copy so that a clock can begin anew."""
        return self

    @property
    def connect_timeout(self) -> float:
        """What is left. Raises `DeadlineExceeded`."""
        return self._call.remaining()

    @property
    def read_timeout(self) -> float:
        """What is left. Raises `DeadlineExceeded`."""
        return self._call.remaining()


# to the checker the mix-in is a connection itself: only beside one it is used
_Base: Any = HTTPConnection if TYPE_CHECKING else object


class _Timed(_Base):  # type: ignore[misc]
    """What is timed of a connection. `timeout` is what is left, however long ago it was set."""

    _until: float | None = None

    _dns_host: str
    """The name or the address that urllib3 connects to."""

    @property
    def timeout(self) -> float | None:
        """Seconds that are left, None for no limit, as for a connection nobody has asked for."""
        if self._until is None:
            return None
        return max(self._until - time.monotonic(), SHORTEST_SECONDS)

    @timeout.setter
    def timeout(self, seconds: object) -> None:
        is_limit = isinstance(seconds, int | float)
        self._until = time.monotonic() + seconds if is_limit else None  # type: ignore[operator]

    def limit(self, sock: Any) -> None:
        """Allow the next step on a socket what is left. Raises TimeoutError."""
        left = self.timeout
        if left is not None and left <= SHORTEST_SECONDS:
            raise TimeoutError("the deadline has passed")
        sock.settimeout(left)

    def send(self, data: Any) -> None:
        """Write a part of a request."""
        if self.sock is not None:
            self.limit(self.sock)
        super().send(data)

    def _new_conn(self) -> Any:
        sock = self._connected()
        self.limit(sock)  # for TLS begins on it, and with an own clock
        return sock

    def _connected(self) -> Any:
        """A socket of the first address that answers; urllib3 allows each of them all the time."""
        name = self._dns_host
        try:
            found = socket.getaddrinfo(name.strip("[]"), self.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):  # which urllib3 puts into words
            return super()._new_conn()
        try:
            while True:
                self._dns_host = str(found.pop(0)[4][0])
                try:
                    return super()._new_conn()
                except NewConnectionError:
                    if not found:
                        raise
        finally:
            self._dns_host = name

    def response_class(self, sock: Any, **options: Any) -> Any:
        """An answer that is read from a socket; `http.client` calls this."""
        return super().response_class(_Source(self, sock), **options)


class _Source:
    """What `http.client` takes for the socket of an answer."""

    def __init__(self, connection: _Timed, sock: Any) -> None:
        self._connection, self._sock = connection, sock

    def makefile(self, _: str) -> io.BufferedReader:
        return io.BufferedReader(_Reads(self._connection, self._sock))


class _Reads(io.RawIOBase):
    """The bytes of a socket, each part within what is left."""

    def __init__(self, connection: _Timed, sock: Any) -> None:
        self._connection, self._sock = connection, sock
        self._file = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._connection.limit(self._sock)
        count: int | None = self._file.readinto(buffer)
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


class _Plain(_Timed, HTTPConnection):  # type: ignore[misc]
    pass


class _Tls(_Timed, HTTPSConnection):  # type: ignore[misc]
    pass


class PlainPool(urllib3.HTTPConnectionPool):
    """Timed connections without TLS."""

    ConnectionCls = _Plain


class TlsPool(urllib3.HTTPSConnectionPool):
    """Timed connections with TLS."""

    ConnectionCls = _Tls


POOLS = {"http": PlainPool, "https": TlsPool}
