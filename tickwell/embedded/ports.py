"""A port for each service, the same one at every start as long as it is free."""

from __future__ import annotations

import socket
from pathlib import Path

from tickwell.embedded.notes import read_note, write_note
from tickwell.errors import TickwellError

HOST = "127.0.0.1"


def keep_port(file: Path) -> int:
    """The port noted in `file` if it is free, else a free one, which is then noted."""
    try:
        port = int(read_note(file) or "")
        bind(port)
    except (OSError, ValueError, TickwellError):
        port = bind(0)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_note(file, f"{port}\n")
    return port


def connect(host: str, port: int) -> None:
    """Raises OSError while nothing listens there."""
    socket.create_connection((host, port), 1).close()


def bind(port: int, host: str = HOST) -> int:
    """The port, a free one for 0. Raises OSError where a server cannot listen there."""
    # the least is IPv4, where a name has both
    family, kind, _, _, address = min(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    with socket.socket(family, kind) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        number: int = listener.getsockname()[1]
    return number
