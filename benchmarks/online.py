"""The online worker beside stock Faust, Bytewax and Quix Streams, and two workers beside one.

A worker is timed from its first run in Redis to its last, a peer for a fixed time after its first
thousand ticks, since it would need minutes.

One worker and two are compared while all are at work: from the moment when every partition has
moved to the moment when the first one is at its end. Two workers join first, are killed, and come
back to the partitions that they had, so that no rebalance is in the figure.
"""

from __future__ import annotations

import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from signal import SIGKILL

import msgspec
import redis

from benchmarks.backlog import Backlog
from benchmarks.peers.environment import PEERS
from benchmarks.processes import Build, Child, peak_mb, processor_seconds, resident_mb, running
from benchmarks.results import Failed, Run
from benchmarks.services import Services, environment
from benchmarks.timing import counted, span
from benchmarks.workers import (
    await_shares,
    check_counted,
    online_done,
    start_worker,
    watermarks,
    worker,
)
from tickwell.settings import Settings

LIMIT_SECONDS = 180.0


def online(services: Services, backlog: Backlog, limit: float = LIMIT_SECONDS) -> Run:
    """Ticks a second of one online worker."""
    settings = services.fresh(backlog.settings)
    with worker(services, settings, "online") as child:
        found = span(
            online_done(settings, backlog.topic),
            backlog.ticks,
            limit,
            [child],
            lambda: {"worker": processor_seconds(child.pid), **services.processor_seconds()},
        )
        memory = resident_mb(child.pid)
        if found.complete:
            check_counted(settings, "online", backlog.ticks, "one")
    return _run(found.rate, found.ticks, found.seconds, found.cpu, memory)


def peer(services: Services, backlog: Backlog, name: str, seconds: float) -> Run:
    """Ticks a second of a peer, for `seconds`."""
    settings = services.fresh(backlog.settings)
    commands = {
        "stock Faust": ["-m", "faust", "-A", "benchmarks.peers.stock_faust"],
        "stock Faust, INSERT": ["-m", "faust", "-A", "benchmarks.peers.stock_insert"],
        "Bytewax": ["-m", "bytewax.run", "benchmarks.peers.bytewax_flow"],
        "Quix Streams": ["-m", "benchmarks.peers.quix_app"],
    }
    command = commands[name]
    with tempfile.TemporaryDirectory(dir=services.place) as state, ExitStack() as stack:
        told = {
            **environment(settings),
            "BENCH_GROUP": f"peer-{uuid.uuid4().hex[:8]}",
            "BENCH_TOPIC": backlog.topic.name,
            "BENCH_STATE": state,
        }
        if command[1] == "faust":
            command = [*command, "--datadir", state, "worker", "--without-web"]
            start = running("peer", command, told, services.place)
        else:
            start = running("peer", command, told, services.place, Build(str(PEERS.python())))
        child = stack.enter_context(start)
        found = span(
            counted(child.log),
            # what is less than a thousand is not told
            backlog.ticks - 1000,
            seconds,
            [child],
            lambda: {"peer": processor_seconds(child.pid), **services.processor_seconds()},
        )
        run = _run(found.rate, found.ticks, found.seconds, found.cpu, resident_mb(child.pid))
        return msgspec.structs.replace(run, detail={"peak_mb": peak_mb(child.pid)})


def together(services: Services, backlog: Backlog, instances: tuple[str, ...]) -> Run:
    """Ticks a second of online workers of one group while all are at work."""
    settings = services.fresh(backlog.settings)
    _share_out(services, settings, backlog, instances)
    with redis.Redis.from_url(settings.redis) as store, ExitStack() as stack:
        store.flushall()
        children = _started(services, settings, instances, stack)

        def processor() -> dict[str, float]:
            times = {child.name: processor_seconds(child.pid) for child in children}
            return {**times, **services.processor_seconds()}

        first, before = _await(store, backlog, children, all), processor()
        last, after = _await(store, backlog, children, any, backlog.ends), processor()
        _await(store, backlog, children, all, backlog.ends)
        check_counted(settings, "online", backlog.ticks, *instances)
        memory = sum(resident_mb(child.pid) for child in children)
    ticks, seconds = last[0] - first[0], last[1] - first[1]
    if ticks <= 0:
        raise Failed("there was no time at which every partition moved: too few ticks")
    cpu = {name: round(after[name] - before[name], 3) for name in before}
    return _run(ticks / seconds, ticks, seconds, cpu, memory)


def _started(
    services: Services, settings: Settings, instances: tuple[str, ...], stack: ExitStack
) -> list[Child]:
    children = []
    for name in instances:
        children.append(start_worker(services, settings, "online", name))
        stack.callback(children[-1].stop)
    return children


def _share_out(
    services: Services, settings: Settings, backlog: Backlog, instances: tuple[str, ...]
) -> None:
    """Have workers share the partitions, and kill them: they will come back to those."""
    with ExitStack() as stack:
        children = _started(services, settings, instances, stack)
        await_shares(settings, backlog.topic, "online", children, instances)
        for child in children:
            child.send(SIGKILL)


def _await(
    store: redis.Redis,
    backlog: Backlog,
    children: list[Child],
    which: Callable[[Iterable[bool]], bool],
    ends: Sequence[int] = (1,) * 1024,
) -> tuple[int, float]:
    """The offsets stored, and the moment, when `which` partitions (all, any) are at their `ends`.

    Without `ends`: when they have moved.
    """
    deadline = time.monotonic() + LIMIT_SECONDS
    while True:
        stored = watermarks(store, backlog.topic)
        moment = time.monotonic()
        if which(at >= end for at, end in zip(stored, ends, strict=False)):
            return sum(stored), moment
        if moment > deadline:
            raise Failed(f"only {sum(stored):,} of {backlog.ticks:,} ticks were done")
        for child in children:
            child.check()
        time.sleep(0.01)


def _run(rate: float, ticks: int, seconds: float, cpu: dict[str, float], memory: float) -> Run:
    return Run(
        value=rate,
        ticks=ticks,
        seconds=seconds,
        cpu=cpu,
        memory_mb=memory,
    )
