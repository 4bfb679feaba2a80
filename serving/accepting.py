"""Accepting the connections that wait at a listening socket."""

from __future__ import annotations

import socket
from collections.abc import Iterator


def accepted_by(listener: socket.socket, most: int | None = None) -> Iterator[socket.socket]:
    """The connections that wait at a non-blocking listener, no more than `most`.

    Raises `OSError` where the system has no room for one.
    """
    count = 0
    while most is None or count < most:
        try:
            accepted, _ = listener.accept()
        except BlockingIOError:
            return
        except ConnectionAbortedError:  # the client has gone meanwhile
            continue
        yield accepted
        count += 1
