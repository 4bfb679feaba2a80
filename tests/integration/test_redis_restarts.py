"""A single Redis that is killed and started again: with all it had, without its last writes, empty.

The append-only file is cut where a power failure could have cut it, also inside a script.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

from pipelines.errors import StoreWentBack
from pipelines.kafka.run import Run
from registry import redis_clients
from tests.support.logs import TOPIC_ID, runs
from tests.support.services import kill
from tests.support.sinks import (
    GO_ON,
    Opened,
    before_each_write,
    clean_dump,
    redis_dump,
    ticks,
    worker,
)
from tests.support.writers import PARTS, SYMBOLS, in_parts
from tickwell.embedded.valkey import valkey
from tickwell.up.process import Process

pytestmark = pytest.mark.timeout(60)


@dataclass
class Server:
    """A Valkey of the test's own, which keeps an append-only file."""

    url: str
    process: Process
    directory: Path

    @property
    def written(self) -> int:
        """Bytes of the append-only file."""
        with redis_clients.probe(self.url) as client:
            while client.info("persistence")["aof_buffer_length"]:
                pass
        return self._file.stat().st_size

    @property
    def _file(self) -> Path:
        (file,) = self.directory.glob("appendonlydir/*.incr.aof")
        return file

    def restart(self, size: int | None = None) -> None:
        """Kill it, and start it with the first `size` bytes of its file; by default with all."""
        kill(self.process)
        if size == 0:
            shutil.rmtree(self.directory / "appendonlydir")
        elif size is not None:
            os.truncate(self._file, size)
        self.process.start()
        self.process.wait_ready()


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("restarted")
    spec, url = valkey(directory / "warm", "warm")
    process = Process(spec)
    process.start()
    try:
        process.wait_ready()
        yield Server(url, process, directory / "warm")
    finally:
        process.stop()


@pytest.fixture
def server(started: Server) -> Server:
    with redis.Redis.from_url(started.url) as client:
        client.flushall()
    return started


@pytest.fixture
def log() -> list[Run]:
    return list(runs(ticks(SYMBOLS, 200, seq=False), (50, 100, 150)))


def go_on(opened: Opened, server: Server, log: list[Run]) -> dict[bytes, bytes]:
    """A new worker resumes at the store's watermark; returns what is stored in the end."""
    sink = in_parts(opened, server.url)
    stored = sink.watermarks(TOPIC_ID, [0]).get(0, 0)
    fresh = worker(sink)
    for run in log:
        if run.next_offset > stored:
            fresh.materialize(run, GO_ON)
    return redis_dump(server.url)


CUTS: dict[str, Callable[[int, int], int]] = {
    "nothing": lambda begin, end: end,
    "a byte": lambda begin, end: end - 1,
    "a part": lambda begin, end: end - (end - begin) // PARTS,
    "two parts": lambda begin, end: begin + (end - begin) // PARTS,
    "a run": lambda begin, end: begin,
    "all": lambda begin, end: 0,
}


@pytest.mark.parametrize("lost", CUTS)
def test_it_was_restarted_between_two_runs(
    opened: Opened, server: Server, log: list[Run], lost: str
) -> None:
    """The worker remembers what is lost, and has computed the next run on it."""
    work = worker(in_parts(opened, server.url))
    work.materialize(log[0], GO_ON)
    begin = server.written
    work.materialize(log[1], GO_ON)
    computed = work.compute_ahead(log[2])
    assert computed is not None
    server.restart(CUTS[lost](begin, server.written))
    before = redis_dump(server.url)
    if lost == "nothing":  # but the script, which is told again
        assert work.store(computed) is not None
    else:
        assert work.store(computed) is None
        with pytest.raises(StoreWentBack):
            work.materialize_again(log[2], GO_ON)
        assert redis_dump(server.url) == before
    found = go_on(opened, server, log)
    assert found == clean_dump(opened, server.url, log)


@pytest.mark.parametrize("lost", ["nothing", "a byte", "a run"])
@pytest.mark.parametrize("moment", range(1, PARTS + 1))
def test_it_was_restarted_in_the_middle_of_a_run(
    opened: Opened, server: Server, log: list[Run], lost: str, moment: int
) -> None:
    """What was sent of the run is stored or not, and the run is stored again; what was stored of
    the run before may be lost as well."""
    sink = in_parts(opened, server.url)
    work = worker(sink)
    work.materialize(log[0], GO_ON)
    begin = server.written
    work.materialize(log[1], GO_ON)

    def restart(number: int) -> None:
        if number == moment:
            server.restart(CUTS[lost](begin, server.written))

    before_each_write(sink, restart)
    try:
        work.materialize(log[2], GO_ON)
        assert lost == "nothing" or moment > 1
    except StoreWentBack:
        assert lost != "nothing"
    found = go_on(opened, server, log)
    assert found == clean_dump(opened, server.url, log)


def test_it_forgets_that_another_worker_has_taken_over(
    opened: Opened, server: Server, log: list[Run]
) -> None:
    """It is as the first one left it then, who may go on. The other one, which remembers what is
    lost, finds a watermark that it knows."""
    first, second = (worker(in_parts(opened, server.url)) for _ in range(2))
    first.materialize(log[0], GO_ON)
    computed = first.compute_ahead(log[1])
    assert computed is not None
    size = server.written
    second.materialize(log[1], GO_ON)
    server.restart(size)
    assert first.store(computed) is not None
    second.materialize(log[2], GO_ON)
    first.materialize(log[3], GO_ON)
    found = redis_dump(server.url)
    assert found == clean_dump(opened, server.url, log)
