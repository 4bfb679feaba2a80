"""A store that refuses, or does not answer, and a worker that is stopped while it stores."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import redis

from pipelines.compute.run_computation import RunComputation
from pipelines.kafka.topics import Topic
from pipelines.live.materializer import Materializer
from pipelines.stores.postgres.offline_sink import OfflineSink
from pipelines.stores.redis.online_sink import OnlineSink
from registry.formats.row import unpack
from tests.support.logs import TOPIC_ID, runs
from tests.support.services import kill
from tests.support.shipped import PROGRAM, RULES, SCHEMA, SOURCE
from tests.support.sinks import BEGIN, GO_ON, Opened, postgres_dump, query, ticks, worker
from tests.support.states import loaded
from tests.support.stored import stored_row

STOPPED = """
import io, os, signal, sys
from tests.support.sinks import *
from tests.support.states import loaded
from tests.support.logs import runs
from pipelines.stores.postgres.offline_sink import OfflineSink
from pipelines.stores.postgres.row_copy import COPY, copy_rows

def stop():
    print("stopped", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)

class StopsAfterAChunk(io.BytesIO):
    chunks = 0

    def read(self, size=-1):
        self.chunks += 1
        if self.chunks == 2:
            stop()
        return super().read(size)

def stop_in_the_copy(cursor, rows):
    cursor.copy_expert(COPY, StopsAfterAChunk(rows), 1 << 16)

def copy_and_stop(cursor, rows):
    copy_rows(cursor, rows)
    stop()

copy = stop_in_the_copy if sys.argv[2] == "in the copy" else copy_and_stop
(run,) = runs(ticks(["A"], 500), ())
worker(OfflineSink(sys.argv[1], copy=copy)).materialize(run, GO_ON)
"""


@pytest.mark.parametrize(
    ("where", "state"), [("in the copy", "active"), ("after it", "idle in transaction")]
)
def test_a_worker_stopped_in_the_middle_blocks_nobody(
    opened: Opened, database: str, caplog: pytest.LogCaptureFixture, where: str, state: str
) -> None:
    """It holds the partition, in a transaction; the next owner ends its session."""
    stopped = subprocess.Popen(
        [sys.executable, "-c", STOPPED, database, where],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert stopped.stdout is not None
    try:
        assert stopped.stdout.readline() == b"stopped\n"
        assert copying_states(database) == [state]
        first, second = runs(ticks(["A"], 1000), (500,))
        sink = opened(OfflineSink(database))
        assert sink.settle(Topic("ticks.price", TOPIC_ID, 1)) == 1
        work = worker(sink)
        work.materialize(first, GO_ON)
        # not that the database's own limits have ended it: they take five times as long, or more
        assert "ended 1 sessions" in caplog.text
        work.materialize(second, GO_ON)
        before = postgres_dump(database)
        stopped.send_signal(signal.SIGCONT)  # it continues, and finds its run stored
        assert stopped.wait(30) == 0
        assert postgres_dump(database) == before
        assert len(before[0]) == 1000
    finally:
        stopped.kill()
        stopped.wait()
        stopped.stdout.close()


def copying_states(url: str) -> list[str]:
    """The states of the sessions whose last statement is a copy."""
    states = query(
        url,
        "SELECT state FROM pg_stat_activity WHERE datname = current_database()"
        " AND query LIKE 'COPY tickwell.feature_rows %'",
    )
    return [state for (state,) in states]


@contextmanager
def own_redis(data: Path) -> Iterator[Any]:
    from tickwell.embedded.valkey import valkey
    from tickwell.up.process import Process

    spec, url = valkey(data / uuid.uuid4().hex, "warm")
    process = Process(spec)
    process.start()
    process.wait_ready()
    try:
        yield process, url
    finally:
        process.stop()


def test_a_store_that_is_away_is_waited_for(
    opened: Opened, data: Path, entities_a_call: int
) -> None:
    with own_redis(data) as (process, url):
        first, second = runs(ticks(["A", "B"], 20), (10,))
        work = worker(opened(OnlineSink(url, entities_a_call=entities_a_call)))
        work.materialize(first, GO_ON)
        time.sleep(1.1)  # appendfsync everysec
        kill(process)
        waiting = Thread(target=work.materialize, args=(second, GO_ON))
        waiting.start()
        while work.retrying is None:
            time.sleep(0.01)
        assert "Redis" in work.retrying
        process.start()
        waiting.join(60)
        assert not waiting.is_alive()
        assert work.retrying is None
        with redis.Redis.from_url(url) as client:
            row = unpack(stored_row(client, "price", "B"))
        assert row.origin.offset == 19
        state = loaded(opened(OnlineSink(url)), SOURCE, ["B"], 64, BEGIN)["B"]
        assert state.count == 10


def test_a_store_that_says_nothing_counts_as_away(opened: Opened, data: Path) -> None:
    """Stopped, not killed: the call hangs in it, and no error comes."""
    with own_redis(data) as (process, url):
        first, second = runs(ticks(["A", "B"], 20), (10,))
        sink = opened(OnlineSink(url))
        work = Materializer(RunComputation(RULES, SCHEMA, PROGRAM, 1000), sink, stall_seconds=0.2)
        work.materialize(first, GO_ON)
        os.kill(process.pid, signal.SIGSTOP)
        try:
            waiting = Thread(target=work.materialize, args=(second, GO_ON))
            waiting.start()
            while work.retrying is None:
                time.sleep(0.01)
            assert "has not answered for" in work.retrying
        finally:
            os.kill(process.pid, signal.SIGCONT)
        waiting.join(60)
        assert work.retrying is None
        assert sink.watermarks(TOPIC_ID, [0]) == {0: 20}
