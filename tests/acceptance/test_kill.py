"""Kill -9 of workers at any instant: one row a tick, Redis as the newest row, no step back."""

from __future__ import annotations

import json
import random
import signal
import time
from typing import Any

import psycopg2
import pytest

from registry.formats.row import unpack
from tests.support.checks import assert_no_difference
from tests.support.load import load, progress, reader
from tests.support.logs import NOW_MS
from tests.support.pipeline import PATIENCE, Pipeline, wait_for
from tests.support.stored import stored_row

ROUNDS = {"kill": 8, "stop": 4}


@pytest.mark.timeout(400)
@pytest.mark.parametrize("how", ["kill", pytest.param("stop", marks=pytest.mark.long)])
def test_workers_that_are_killed_or_stopped(running: Pipeline, how: str) -> None:
    chance = random.Random(3)
    for sink in ("online", "offline"):
        running.start_worker(sink)
    with load(running), reader(running) as steps_back:
        for number in range(ROUNDS[how]):
            sink = ("online", "offline")[number % 2]
            rows = progress(running, sink)
            wait_for("progress", lambda sink=sink, rows=rows: progress(running, sink) > rows)
            time.sleep(chance.uniform(0, 0.4))
            if how == "kill":
                running.kill(f"{sink}-one")
                running.start_worker(sink)
            else:
                pause_and_replace(running, sink, chance)
    running.wait_drained("online", "offline")
    assert steps_back == []
    assert_no_difference(running)


def pause_and_replace(running: Pipeline, sink: str, chance: random.Random) -> None:
    """The worker is paused, another one takes its partitions over, and the first continues."""
    paused = running.processes[f"{sink}-one"]
    paused.send_signal(signal.SIGSTOP)
    if f"{sink}-two" not in running.processes:
        running.start_worker(sink, "two")
    time.sleep(7 + chance.uniform(0, 1))  # past the session's end
    paused.send_signal(signal.SIGCONT)


@pytest.mark.timeout(240)
def test_killed_inside_the_transaction(running: Pipeline) -> None:
    """The transaction is undone without its client; the next owner stores the run."""
    for sink in ("online", "offline"):
        running.start_worker(sink)
    running.produce("price", [(b"S0", b'{"symbol":"S0","price":1,"ts":1700000000001}')])
    running.wait_drained("offline")
    holder = psycopg2.connect(running.settings.postgres)
    with holder.cursor() as cursor:
        cursor.execute("SELECT * FROM tickwell.watermarks FOR UPDATE")
        running.produce("price", [(b"S0", b'{"symbol":"S0","price":2,"ts":1700000000002}')])
        wait_for("the worker is inside", lambda: waiting(running))
        running.kill("offline-one")
    holder.rollback()
    holder.close()
    running.start_worker("offline")
    running.produce("price", [(b"S0", b'{"symbol":"S0","price":3,"ts":1700000000003}')])
    running.wait_drained("online", "offline")
    rows = running.query("SELECT price FROM features.price ORDER BY event_time")
    assert rows == [(1,), (2,), (3,)]
    assert_no_difference(running)


@pytest.mark.timeout(240)
def test_killed_inside_the_script(running: Pipeline) -> None:
    """The script waits in the server when its client dies; whether it then ran shows nowhere."""
    running.start_worker("online")
    running.produce("price", ticks(0, 30))
    running.wait_drained("online")
    for offset, ran in ((30, False), (31, True)):
        with running.redis() as client:
            client.client_pause(60_000, all=False)  # writes wait, scripts among them
            try:
                running.produce("price", ticks(offset, 1))
                wait_for("the script waits", lambda client=client: script_waits(client))
                if ran:
                    # so that it is not killed too late, when it has heard of it
                    running.processes["online-one"].send_signal(signal.SIGSTOP)
                else:
                    running.kill("online-one")
            finally:
                client.client_unpause()
            if ran:
                wait_for("it ran", lambda client=client, at=offset: newest(client) == at)
                running.kill("online-one")
            assert progress(running, "online") == offset + ran
        running.start_worker("online")
        running.wait_drained("online")
    running.produce("price", ticks(32, 1))
    running.wait_drained("online")
    running.start_worker("offline")
    running.wait_drained("offline")
    assert_no_difference(running)


def script_waits(client: Any) -> bool:
    return any(c["cmd"] == "evalsha" and "b" in c["flags"] for c in client.client_list())


def newest(client: Any) -> int:
    """The offset of the newest tick that is served."""
    return unpack(stored_row(client, "price", "S0")).origin.offset


def ticks(first: int, n: int) -> list[tuple[bytes, bytes]]:
    """Ticks whose windows show if one is missing or counted twice: they have no `seq`, which would
    give a repeated one away, and each has another price."""
    made = [{"symbol": "S0", "price": 1 + i * i, "ts": NOW_MS + i} for i in range(first, first + n)]
    return [(b"S0", json.dumps(tick).encode()) for tick in made]


KILLED_AT_AN_ACK = """
import os, signal, sys
from faust.events import Event
from tickwell.cli import main

when = sys.argv.pop(1)
ack = Event.ack

def killed(event):
    if when == "after":
        ack(event)
    os.kill(os.getpid(), signal.SIGKILL)

Event.ack = killed
main()
"""


@pytest.mark.timeout(240)
def test_killed_before_and_after_an_ack(running: Pipeline) -> None:
    """The store has the run, and Kafka has not heard of it: the store's watermark counts."""
    running.produce("price", ticks(0, 30))
    moments = {"online": "before", "offline": "after"}
    # In turn: what Postgres has already the online one would rebuild, and not read.
    for sink, when in moments.items():
        arguments = ("worker", "--sink", sink, "--instance", "one")
        process = running.start(f"{sink}-one", when, *arguments, program=("-c", KILLED_AT_AN_ACK))
        assert process.wait(PATIENCE) == -signal.SIGKILL
        assert progress(running, sink) == 30
        assert running.committed(sink) == {}
    running.produce("price", ticks(30, 30))
    for sink in moments:
        running.start_worker(sink)
    running.wait_drained(*moments)
    assert_no_difference(running)


HELD_BY_A_TASK = """
import asyncio
from pipelines.live.faust_app import SinkApp
from tickwell.cli import main

start = SinkApp.start

async def deaf():
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass

async def start_beside(self):
    self.deaf = asyncio.create_task(deaf())
    await start(self)

SinkApp.start = start_beside
main()
"""


@pytest.mark.timeout(240)
def test_stopped_whatever_holds_it(running: Pipeline) -> None:
    """A task that loses its cancellation, as some of Faust and aiokafka do."""
    arguments = ("worker", "--sink", "online", "--instance", "one")
    running.start("online-one", *arguments, program=("-c", HELD_BY_A_TASK))
    running.produce("price", ticks(0, 1))
    running.wait_drained("online")
    process = running.processes.pop("online-one")
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 0


def waiting(running: Pipeline) -> bool:
    rows = running.query(
        "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        " AND query LIKE '%%UPDATE tickwell.watermarks%%' AND datname = current_database()"
    )
    return bool(rows)


@pytest.mark.timeout(240)
def test_a_stopped_worker_blocks_nobody(running: Pipeline) -> None:
    """Stopped at random moments under load; another one takes over and finishes the work."""
    for sink in ("online", "offline"):
        running.start_worker(sink)
    with load(running):
        wait_for("progress", lambda: progress(running, "offline") > 2000)
        running.processes["offline-one"].send_signal(signal.SIGSTOP)
        running.start_worker("offline", "two")
        before = progress(running, "offline")
        wait_for("the other makes progress", lambda: progress(running, "offline") > before + 2000)
    running.kill("offline-one")
    running.wait_drained("online", "offline")
    assert_no_difference(running)
