"""What the supervisor of a server and its processes say to each other.

Each says it in single bytes on a Unix socket of the two. A connection that the supervisor has
accepted comes with the byte `CONNECTION`, in its turn: what was handed over before an order is
served. The end of the socket is the end of the other one.
"""

from __future__ import annotations

import msgspec

from tickwell.settings import Settings

CONNECTION = b"c"
NOT_READY = b"n"
"""The server is about to stop: say so, and go on."""

STOP = b"s"
"""No connection follows: answer what has come, and end."""

REPLACED = b"r"
"""The same, but others serve, so that a client without a request need not be hurried."""

STARTED = b"S"
READY = b"R"
"""The process would answer `/health/ready` with 200."""

CLOSED = b"x"
"""One of the connections that were handed over is closed."""

ASKED_TO_END = b"E"
"""The process got a signal: it goes on until it is told that it was replaced."""


class Duty(msgspec.Struct, frozen=True):
    """What a process is told on its standard input: so no secret is in its arguments."""

    settings: Settings
    process: int
    """Its number, which no other process of this server ever has."""

    channel: int
    """The descriptor of its end of the Unix socket."""

    shared: int
    """The descriptor of the file of shared pages."""

    pages: int
    """How many there are."""

    page: int
    """Which one it writes."""
