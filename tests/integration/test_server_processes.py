"""A server of several processes on one port: connections, restarts, stops and counts."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.definitions import Catalog
from tests.support.pipeline import wait_for
from tests.support.server_processes import Clients, RunningServer, running_server

WORKERS, CONNECTIONS = 3, 48


@pytest.fixture
def stores(
    recorded: Catalog, redis_database: str, hot_redis: str, postgres_database: str
) -> dict[str, str]:
    """The environment of a server whose catalog is recorded."""
    return {
        **os.environ,
        "TICKWELL_REDIS": redis_database,
        "TICKWELL_REDIS_HOT": hot_redis,
        "TICKWELL_POSTGRES": postgres_database,
    }


@pytest.fixture
def server(tmp_path: Path, stores: dict[str, str]) -> Iterator[RunningServer]:
    with running_server(tmp_path, WORKERS, stores) as running:
        yield running


def test_connections_are_shared_evenly(server: RunningServer) -> None:
    async def hold() -> list[int]:
        opened = [
            await asyncio.open_connection("127.0.0.1", server.port) for _ in range(CONNECTIONS)
        ]
        try:
            await asyncio.to_thread(
                wait_for, "all are counted", lambda: sum(server.connections()) > CONNECTIONS
            )
            return server.connections()
        finally:
            for _, writer in opened:
                writer.close()

    found = asyncio.run(hold())
    assert max(found) - min(found) <= 1, found


def test_replacing_all_processes_loses_no_request(server: RunningServer) -> None:
    before = set(server.children())
    clients = Clients(server.port)

    async def ask() -> None:
        asking = asyncio.create_task(clients.run(CONNECTIONS))
        while sum(clients.answers.values()) < 200:
            await asyncio.sleep(0.01)
        server.signal(signal.SIGHUP)
        done = lambda: not before & set(server.children())
        await asyncio.to_thread(wait_for, "all are replaced", done)
        clients.stopping = True
        await asking

    asyncio.run(ask())
    print(clients, server.log.read_text())
    assert clients.lost == []
    assert clients.refused == 0
    assert set(clients.answers) == {200}
    assert clients.answers[200] == clients.sent
    assert clients.reconnected >= CONNECTIONS
    assert len(server.children()) == WORKERS
    wait_for("every answer is counted", lambda: server.answered() == clients.sent)
