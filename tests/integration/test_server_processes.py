"""A server of one or several processes: connections, restarts, stops, and what it has counted."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from select import select
from socket import create_connection

import httpx
import psutil
import pytest

from registry.definitions import Catalog
from tests.support.pipeline import PATIENCE, wait_for
from tests.support.server_processes import (
    Clients,
    RunningServer,
    running_server,
    starting_server,
)

PROCESSES, CONNECTIONS = 2, 50


@pytest.fixture
def stores(
    recorded: Catalog, redis_database: str, hot_redis: str, postgres_database: str
) -> dict[str, str]:
    """The environment of a server whose features are recorded."""
    return {
        **os.environ,
        "TICKWELL_REDIS": redis_database,
        "TICKWELL_REDIS_HOT": hot_redis,
        "TICKWELL_POSTGRES": postgres_database,
    }


@pytest.fixture
def server(tmp_path: Path, stores: dict[str, str]) -> Iterator[RunningServer]:
    with running_server(tmp_path, PROCESSES, stores) as running:
        yield running


def asked_while(clients: Clients, *steps: Callable[[], object]) -> None:
    """Let clients ask while each of `steps` is done, and some 500 requests after each."""

    async def more() -> None:
        enough = clients.sent + 500
        while clients.sent < enough and not clients.refused:
            await asyncio.sleep(0.01)

    async def main() -> None:
        asking = asyncio.create_task(clients.run(CONNECTIONS))
        await more()
        for step in steps:
            await asyncio.to_thread(step)
            await more()
        clients.stopping = True
        await asking

    asyncio.run(main())


def shared(server: RunningServer, patience: float = PATIENCE) -> list[int]:
    """How many connections each process gets of many that are opened; none may be lost."""

    def are_counted() -> bool:
        return sum(server.connections()) > CONNECTIONS

    async def main() -> list[int]:
        opened = [
            await asyncio.open_connection("127.0.0.1", server.port) for _ in range(CONNECTIONS)
        ]
        try:
            await asyncio.to_thread(wait_for, "all are counted", are_counted, patience)
            return await asyncio.to_thread(server.connections)
        finally:
            for _, writer in opened:
                writer.close()

    return asyncio.run(main())


def test_connections_are_shared_evenly(server: RunningServer) -> None:
    found = shared(server)
    assert len(found) == PROCESSES
    assert max(found) - min(found) <= 1, found


def test_a_process_without_room_for_connections_says_so_and_gets_as_many_as_others_later(
    server: RunningServer,
) -> None:
    full = next(iter(server.children()))
    before = resource.prlimit(full, resource.RLIMIT_NOFILE)
    files = psutil.Process(full).num_fds()
    resource.prlimit(full, resource.RLIMIT_NOFILE, (files, before[1]))
    with ExitStack() as opened:
        address = "127.0.0.1", server.port
        clients = [opened.enter_context(create_connection(address)) for _ in range(CONNECTIONS)]
        wait_for("many are lost", lambda: len(select(clients, [], [], 0)[0]) > CONNECTIONS / 3)
    assert "raise the limit of open files" in server.log.read_text()
    resource.prlimit(full, resource.RLIMIT_NOFILE, before)

    def are_shared_evenly() -> bool:
        try:
            found = shared(server, patience=5)
        except AssertionError:  # the process was still losing some
            return False
        return max(found) - min(found) <= 2

    wait_for("they are shared evenly again", are_shared_evenly)


def test_replacing_processes_loses_no_request(server: RunningServer) -> None:
    """All of them by SIGHUP, then one that gets a signal itself; and no count goes back."""
    clients, counts = Clients(server.port), [0.0]

    def replaced(before: set[int]) -> bool:
        counts.append(server.answered())
        return not before & set(server.children())

    def replace_all() -> None:
        before = set(server.children())
        server.signal(signal.SIGHUP)
        wait_for("all are replaced", lambda: replaced(before))

    def replace_one() -> None:
        pid, child = next(iter(server.children().items()))
        child.terminate()
        wait_for("it is replaced", lambda: replaced({pid}))

    asked_while(clients, replace_all, replace_one)
    assert (clients.lost, clients.refused) == ([], 0)
    assert clients.answers == {200: clients.sent}
    assert clients.reconnected >= CONNECTIONS
    assert len(server.children()) == PROCESSES
    wait_for("every answer is counted", lambda: server.answered() == clients.sent)
    assert counts == sorted(counts)
    ended = 'tickwell_server_processes_ended_total{how="replaced"}'
    assert server.metrics()[ended] == PROCESSES + 1


@pytest.mark.parametrize("processes", [1, 2])
def test_a_stop_answers_what_was_sent(
    tmp_path: Path, stores: dict[str, str], processes: int
) -> None:
    with running_server(tmp_path, processes, stores) as server:
        clients = Clients(server.port)

        def stop() -> None:
            server.signal(signal.SIGTERM)
            server.process.wait(60)

        asked_while(clients, stop)
        assert clients.lost == []
        assert clients.answers == {200: clients.sent}
        assert clients.refused == CONNECTIONS
        assert server.log.read_text() == ""


def test_before_it_stops_it_says_that_it_is_not_ready(
    tmp_path: Path, stores: dict[str, str]
) -> None:
    with running_server(tmp_path, PROCESSES, stores, stop_pause_seconds=3) as server:
        server.signal(signal.SIGTERM)
        wait_for("it is not ready", lambda: server.status("/health/ready") == 503)
        assert server.status("/health/live") == 200
        clients = Clients(server.port)
        asyncio.run(clients.run(4, 40))
        assert (clients.answers[200], clients.refused, clients.lost) == (clients.sent, 0, [])
        server.process.wait(60)


def test_a_process_that_starts_before_the_stop_says_that_it_is_not_ready(
    tmp_path: Path, stores: dict[str, str]
) -> None:
    with running_server(tmp_path, PROCESSES, stores, stop_pause_seconds=60) as server:
        server.signal(signal.SIGTERM)
        wait_for("it is not ready", lambda: server.status("/health/ready") == 503)
        pid, child = next(iter(server.children().items()))
        child.kill()
        wait_for("it is gone", lambda: pid not in server.children())
        wait_for("another one serves", lambda: len(server.connections()) == PROCESSES)
        assert {server.status("/health/ready") for _ in range(20)} == {503}
        server.signal(signal.SIGINT)
        server.process.wait(60)


def test_a_process_that_is_killed_is_replaced(server: RunningServer) -> None:
    """Its connections end; the others go on; what it had counted is kept."""
    clients = Clients(server.port)
    asyncio.run(clients.run(CONNECTIONS, 1_000))
    wait_for("every answer is counted", lambda: server.answered() == clients.sent)
    assert clients.answers == {200: clients.sent}
    held: list[int] = []

    def count() -> bool:
        """Whether the clients' connections and the one that asks are all that there are."""
        held[:] = server.connections()
        return sum(held) == CONNECTIONS + 1

    def kill() -> None:
        wait_for("earlier connections are closed", count)
        pid, child = next(iter(server.children().items()))
        child.kill()
        wait_for("it is gone", lambda: pid not in server.children())
        wait_for("another one serves", all_serve)

    def all_serve() -> bool:
        try:
            return len(server.connections()) == PROCESSES
        except httpx.TransportError:  # the question was one of what the killed one had accepted
            return False

    sent = clients.sent
    later = Clients(server.port)
    asked_while(later, kill)
    assert min(held) - 1 <= len(later.lost) <= max(held)
    assert (set(later.answers), later.refused) == ({200}, 0)
    assert server.answered() >= sent
    last = Clients(server.port)
    before = wait_for("the rest is counted", lambda: settled(server))
    asyncio.run(last.run(CONNECTIONS, 300))
    wait_for("they add up", lambda: server.answered() == before + last.sent)


def settled(server: RunningServer) -> float | None:
    """What is counted, once that does not change any more."""
    found = [server.answered() for _ in range(60)]
    return found[-1] if len(set(found)) == 1 else None


def test_a_supervisor_that_is_killed_leaves_nothing_behind(server: RunningServer) -> None:
    children = server.children()
    clients = Clients(server.port)

    def kill() -> None:
        server.process.kill()
        server.process.wait()
        wait_for("no process is left", lambda: not any(map(runs, children.values())))

    asked_while(clients, kill)
    assert (clients.lost, clients.refused) == ([], CONNECTIONS)


def runs(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_server_whose_first_process_ends_does_not_start(
    tmp_path: Path, stores: dict[str, str]
) -> None:
    with starting_server(tmp_path, PROCESSES, stores) as server:
        (child,) = wait_for("the first one starts", server.children).values()
        child.kill()
        assert server.process.wait(60) == 1
        assert "ended with -9 before it served" in server.log.read_text()


@pytest.mark.long
def test_a_process_that_ends_again_and_again_ends_the_server(server: RunningServer) -> None:
    kept = set(sorted(server.children())[1:])
    while server.process.poll() is None:
        for pid, child in server.children().items():
            if pid not in kept:
                child.kill()
    assert server.process.wait() == 1
    assert "ended 5 times in a row soon after its start" in server.log.read_text()
