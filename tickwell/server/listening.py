"""The sockets that a server listens on."""

from __future__ import annotations

import errno
import socket
from contextlib import ExitStack
from typing import Any

from tickwell.errors import TickwellError

ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
"""Errors of an address that this machine does not have."""

BACKLOG = 2_048
"""Connections that may wait to be accepted; the system has a bound of its own."""


def listeners(host: str, port: int) -> list[socket.socket]:
    """A socket of each address that `host` has, bound and not yet listening.

    Raises `TickwellError` where the server cannot listen.
    """
    with ExitStack() as opened:
        try:
            found = dict.fromkeys(
                (family, address)
                for family, _, _, _, address in socket.getaddrinfo(
                    host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
                )
            )
            sockets: list[socket.socket] = []
            for number, each in enumerate(found):
                try:
                    sockets.append(opened.enter_context(_bound(*each)))
                except OSError as error:
                    # A name may have an address of IPv6 where the system has none.
                    last = number + 1 == len(found)
                    if error.errno not in ABSENT or (last and not sockets):
                        raise
        except OSError as error:
            raise cannot_listen(host, port, error) from None
        opened.pop_all()
    return sockets


def cannot_listen(host: str, port: int, error: OSError) -> TickwellError:
    """Why a server cannot listen there, and what to do."""
    if error.errno == errno.EADDRINUSE:
        return TickwellError(f"port {port} is taken: name another one with --port")
    return TickwellError(
        f"no server can listen on TICKWELL_HOST={host}, port {port}: {error.strerror}"
    )


def _bound(family: int, address: Any) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Answers go out at once; connections that are accepted have it from here.
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if family == socket.AF_INET6:  # or the same port of IPv4 would be taken too
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(address)
    except OSError:
        made.close()
        raise
    return made
