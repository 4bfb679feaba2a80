"""Kill -9 of workers at any instant: one row a tick, Redis as the newest row, no step back."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

import psycopg2
import pytest

from registry.keys import row_key
from registry.row import unpack
from tests.acceptance.checks import assert_stores_match, expected
from tests.acceptance.pipeline import Pipeline, wait_for

SYMBOLS = [f"S{number}" for number in range(40)]
ROUNDS = {"kill": 8, "stop": 4}


@contextmanager
def load(running: Pipeline, pause: float = 0.05) -> Iterator[None]:
    """Ticks all the while, a hundred every `pause` seconds."""
    stop = Event()

    def send() -> None:
        producer = running.producer(**{"linger.ms": 2})
        number = 0
        while not stop.is_set():
            for _ in range(100):
                symbol = SYMBOLS[number % len(SYMBOLS)]
                now = time.time_ns() // 10**6
                tick = {"symbol": symbol, "price": 100 + number % 97, "ts": now, "seq": number}
                producer.produce(running.topic("price"), json.dumps(tick), symbol)
                number += 1
            producer.poll(0)
            stop.wait(pause)
        assert producer.flush(60) == 0

    thread = Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def reader(running: Pipeline) -> Iterator[list[str]]:
    """Polls every symbol's row and notes each time that one steps back."""
    stop, reads = Event(), [0]
    steps_back: list[str] = []

    def poll() -> None:
        newest: dict[str, tuple[int, int]] = {}
        with running.redis() as client:
            while not stop.is_set():
                rows = client.mget([row_key("price", symbol) for symbol in SYMBOLS])
                for symbol, packed in zip(SYMBOLS, rows, strict=True):
                    if packed is None:
                        if symbol in newest:
                            steps_back.append(f"{symbol} is gone")
                        continue
                    row = unpack(packed)
                    at = (row.event_time, row.sequence)
                    if at < newest.get(symbol, at):
                        steps_back.append(f"{symbol}: {newest[symbol]} to {at}")
                    newest[symbol] = at
                    reads[0] += 1

    thread = Thread(target=poll)
    thread.start()
    try:
        yield steps_back
    finally:
        stop.set()
        thread.join()
        assert reads[0] > 1000


@pytest.mark.timeout(400)
@pytest.mark.parametrize("how", ["kill", "stop"])
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
    assert_stores_match(running, "price", expected(running, "price"))


def pause_and_replace(running: Pipeline, sink: str, chance: random.Random) -> None:
    """The worker is paused, another takes its partitions over, and the first comes back."""
    paused = running.processes[f"{sink}-one"]
    paused.send_signal(signal.SIGSTOP)
    if f"{sink}-two" not in running.processes:
        running.start_worker(sink, "two")
    time.sleep(7 + chance.uniform(0, 1))  # past the session's end
    paused.send_signal(signal.SIGCONT)


def progress(running: Pipeline, sink: str) -> int:
    """How many offsets the store has."""
    if sink == "offline":
        ((offsets,),) = running.query(
            "SELECT coalesce(sum(next_offset), 0) FROM tickwell.watermarks"
        )
        return int(offsets)
    with running.redis() as client:
        return sum(int(client.get(key)) for key in client.scan_iter("tw:watermark:*"))


@pytest.mark.timeout(240)
def test_killed_inside_the_transaction(running: Pipeline) -> None:
    """The statement goes on in the server without its client; the worker finds the run stored."""
    running.start_worker("offline")
    running.produce("price", [(b"S0", b'{"symbol":"S0","price":1,"ts":1}')])
    running.wait_drained("offline")
    holder = psycopg2.connect(running.settings.postgres)
    with holder.cursor() as cursor:
        cursor.execute("SELECT * FROM tickwell.watermarks FOR UPDATE")
        running.produce("price", [(b"S0", b'{"symbol":"S0","price":2,"ts":2}')])
        wait_for("the worker is inside", lambda: waiting(running))
        running.kill("offline-one")
    holder.rollback()
    holder.close()
    running.start_worker("offline")
    running.produce("price", [(b"S0", b'{"symbol":"S0","price":3,"ts":3}')])
    running.wait_drained("offline")
    rows = running.query("SELECT price FROM features.price ORDER BY event_time")
    assert rows == [(1,), (2,), (3,)]


@pytest.mark.timeout(240)
def test_killed_inside_the_script(running: Pipeline) -> None:
    """The script waits in the server when its client dies; whether it then ran shows nowhere."""
    running.start_worker("online")
    running.produce("price", [(b"S0", b'{"symbol":"S0","price":1,"ts":1}')])
    running.wait_drained("online")
    with running.redis() as client:
        client.client_pause(60_000, all=False)  # writes wait, scripts among them
        try:
            running.produce("price", [(b"S0", b'{"symbol":"S0","price":2,"ts":2}')])
            wait_for(
                "the script waits",
                lambda: any(
                    c["cmd"] == "evalsha" and "b" in c["flags"] for c in client.client_list()
                ),
            )
            running.kill("online-one")
        finally:
            client.client_unpause()
    running.start_worker("online")
    running.produce("price", [(b"S0", b'{"symbol":"S0","price":3,"ts":3}')])
    running.wait_drained("online")
    running.start_worker("offline")
    running.wait_drained("offline")
    assert_stores_match(running, "price", expected(running, "price"))


def waiting(running: Pipeline) -> bool:
    rows = running.query(
        "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        " AND query LIKE '%%store_run%%' AND datname = current_database()"
    )
    return bool(rows)


@pytest.mark.timeout(240)
def test_a_stopped_worker_blocks_nobody(running: Pipeline) -> None:
    """Stopped at random places under load; another one takes over and finishes the work."""
    running.start_worker("offline")
    with load(running):
        wait_for("progress", lambda: progress(running, "offline") > 2000)
        running.processes["offline-one"].send_signal(signal.SIGSTOP)
        running.start_worker("offline", "two")
        before = progress(running, "offline")
        wait_for("the other goes on", lambda: progress(running, "offline") > before + 2000)
    running.kill("offline-one")
    running.wait_drained("offline")
