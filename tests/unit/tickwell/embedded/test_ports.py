"""Ports of services: none of clients, never one twice, the same one as long as it is free."""

from __future__ import annotations

import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tickwell.embedded.ports import HOST, OF_CLIENTS, keep_port

CLIENTS = "15000\t60999\n"


def test_a_port_is_none_of_those_of_clients(tmp_path: Path) -> None:
    (tmp_path / "clients").write_text(CLIENTS)
    ports = {keep_port(tmp_path / str(n), tmp_path / "clients") for n in range(50)}
    assert len(ports) == 50
    assert all(10_000 <= port < 15_000 or 61_000 <= port < 65_536 for port in ports)


def test_the_systems_own_range_is_read(tmp_path: Path) -> None:
    if not OF_CLIENTS.exists():
        pytest.skip("needs Linux")
    with socket.create_server((HOST, 0)) as server:
        first, last = map(int, OF_CLIENTS.read_text().split())
        assert first <= server.getsockname()[1] <= last
    assert not first <= keep_port(tmp_path / "port") <= last


@pytest.mark.parametrize("clients", ["1024 65535\n", "", "what\n", None])
def test_any_free_port_where_there_is_no_other(tmp_path: Path, clients: str | None) -> None:
    if clients is not None:
        (tmp_path / "clients").write_text(clients)
    port = keep_port(tmp_path / "port", tmp_path / "clients")
    with socket.create_server((HOST, port)):
        assert (tmp_path / "port").read_text() == f"{port}\n"


def test_it_stays_as_long_as_it_is_free(tmp_path: Path) -> None:
    port = keep_port(tmp_path / "port")
    assert keep_port(tmp_path / "port") == port
    with socket.create_server((HOST, port)):
        other = keep_port(tmp_path / "port")
    assert other != port
    assert keep_port(tmp_path / "port") == other


def test_no_two_find_the_same_port(tmp_path: Path) -> None:
    """Neither threads nor processes, though nothing listens yet; and there are only twenty."""
    (tmp_path / "clients").write_text("10020 65535\n")
    program = (
        "import sys; from pathlib import Path; from tickwell.embedded.ports import keep_port\n"
        "found = [keep_port(Path(sys.argv[1], str(n)), Path(sys.argv[2])) for n in range(8)]\n"
        "print(*found, flush=True); sys.stdin.read()"
    )
    found: list[int] = []
    command = [sys.executable, "-c", program, str(tmp_path / "other"), str(tmp_path / "clients")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        found += map(int, other.stdout.readline().split())
        with ThreadPoolExecutor(4) as threads:
            files = [tmp_path / str(n) for n in range(8)]
            found += threads.map(lambda file: keep_port(file, tmp_path / "clients"), files)
        other.communicate()
    few = [port for port in found if port < 10_020]
    assert len(found) == len(set(found)) == 16
    assert len(few) >= 10  # all, unless something else listens at some of them
