"""A port for each service, the same one at every start as long as it is free.

Not one of those that the system gives to clients: while a service is away, a client that connects
to its port again and again is given that very port one day, is then connected with itself, and the
service finds its port taken.
"""

from __future__ import annotations

import random
import socket
from contextlib import suppress
from pathlib import Path

from tickwell.embedded.notes import read_note, write_note
from tickwell.errors import TickwellError

HOST = "127.0.0.1"

OF_CLIENTS = Path("/proc/sys/net/ipv4/ip_local_port_range")
"""Where Linux says which ports it gives to clients: the first and the last."""

SERVICE_PORTS = range(10_000, 65_536)
"""Ports that are tried; below them are those that other programs have as their default."""

ATTEMPTS = 200
"""Ports that are tried before one of those of clients is taken."""


def keep_port(file: Path, of_clients: Path = OF_CLIENTS) -> int:
    """The port noted in `file` if it is free, else a free one, which is then noted."""
    try:
        port = int(read_note(file) or "")
        bind(port)
    except (OSError, ValueError, TickwellError):
        port = _free_port(of_clients)
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


def _free_port(of_clients: Path) -> int:
    """A free port that no client is given; any free one where the system has no such."""
    candidates = _never_of_clients(of_clients)
    for port in random.sample(candidates, min(ATTEMPTS, len(candidates))):
        with suppress(OSError):
            _keep_from_others(port)
            return bind(port)
    return bind(0)


def _never_of_clients(of_clients: Path) -> list[int]:
    """Ports for services, [] where the system does not say which ones it gives to clients."""
    try:
        first, last = map(int, of_clients.read_text("ascii").split())
    except (OSError, ValueError):
        return []
    return [port for port in SERVICE_PORTS if not first <= port <= last]


def _keep_from_others(port: int) -> None:
    """Keep this function, in any process, from finding the port until this process ends.

    Its service may listen there only later. Raises OSError where the port was found before. The
    name is not of the file system (Linux has a space of names for that), so nothing is left behind.
    """
    with socket.socket(socket.AF_UNIX) as name:
        name.bind(f"\0tickwell-port-{port}")
        name.detach()
