"""This build beside another one: processor time a tick and a request, and memory.

Wall time varies by more than a change of a few percent on a machine that others use as well, so
what is compared is the processor time of the process itself. The two take turns on the same
services and the same backlog.
"""

from __future__ import annotations

import http.client
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from statistics import median

import msgspec

from benchmarks.backlog import Backlog
from benchmarks.latency import latency, start_server
from benchmarks.processes import Build, peak_mb, processor_seconds
from benchmarks.results import Failed, Run
from benchmarks.services import Services
from benchmarks.timing import Done, Span, span
from benchmarks.workers import check_counted, offline_done, online_done, worker
from tickwell.embedded.ports import HOST, keep_port
from tickwell.settings import Settings

LIMIT_SECONDS = 300.0
PACED_SECONDS = 10.0
REQUESTS = {1: 4_000, 100: 400}
"""Requests by the number of entities in each: some seconds of a server's time."""

WARM_UP_REQUESTS = 50
FEATURES = (
    "current_price",
    "price_sma_5",
    "price_sma_20",
    "price_volatility",
    "current_volume",
    "volume_sma_10",
    "price_sma_5@1.0.0",
    "volatility",
)
MICROSECONDS = "processor µs"


def checkout(root: Path) -> Build:
    """The build of an installed checkout. Raises `Failed` where it is not installed."""
    python = root.resolve() / ".venv/bin/python"
    if not python.exists():
        raise Failed(f"{root} is not an installed checkout: run `make install` in it")
    return Build(str(python), root.resolve())


def worker_time(services: Services, backlog: Backlog, sink: str, build: Build) -> Run:
    """Processor time a tick of a worker, over a whole backlog."""
    settings = services.fresh(backlog.settings, build)
    with worker(services, settings, sink, build=build) as child:
        found = span(
            _done(settings, backlog, sink),
            backlog.ticks,
            LIMIT_SECONDS,
            [child],
            lambda: {"worker": processor_seconds(child.pid), **services.processor_seconds()},
        )
        return _run(found, found.cpu["worker"] / found.ticks, peak_mb(child.pid))


def worker_memory(services: Services, backlog: Backlog, sink: str, build: Build) -> Run:
    """The most memory that a worker takes over a whole backlog."""
    settings = services.fresh(backlog.settings, build)
    with worker(services, settings, sink, build=build) as child:
        found = span(_done(settings, backlog, sink), backlog.ticks, LIMIT_SECONDS, [child], dict)
        check_counted(settings, sink, backlog.ticks, "one")
        most = peak_mb(child.pid)
    return Run(value=most, unit="MB", ticks=found.ticks, seconds=found.seconds, memory_mb=most)


def paced_time(services: Services, build: Build) -> Run:
    """Processor time a tick of an online worker that is sent 5,000 a second: many small runs."""
    run = latency(services, PACED_SECONDS, ("online",), build)
    ticks = round(run.detail["rate"] * run.seconds)
    return msgspec.structs.replace(
        run, value=run.cpu["online-one"] / ticks * 1e6, unit=MICROSECONDS, ticks=ticks
    )


def server_time(services: Services, backlog: Backlog, entities: int, build: Build) -> Run:
    """Processor time of a server for a request of eight features of `entities` symbols."""
    settings = services.fresh(backlog.settings, build)
    with worker(services, settings, "online", build=build) as child:
        done = online_done(settings, backlog.topic)
        span(done, backlog.ticks, LIMIT_SECONDS, [child], dict)
        port = keep_port(services.place / "server-port")
        server = start_server(services, settings, port, build)
        try:
            symbols = [f"S{number}" for number in range(entities)]
            _ask(port, symbols, WARM_UP_REQUESTS)
            before = processor_seconds(server.pid)
            _ask(port, symbols, REQUESTS[entities])
            seconds = processor_seconds(server.pid) - before
            return Run(
                value=seconds / REQUESTS[entities] * 1e6,
                unit=MICROSECONDS,
                cpu={"server": seconds},
                memory_mb=peak_mb(server.pid),
            )
        finally:
            server.stop()


def table(runs: Sequence[Run]) -> list[str]:
    """Each subject of both builds: the medians, and the median and range of the paired ratios."""
    lines = ["| | before | this build | ratio, median (range) | rounds |", "|---|---|---|---|---|"]
    subjects = dict.fromkeys(run.subject.rpartition(": ")[0] for run in runs)
    for subject in subjects:
        before = _values(runs, f"{subject}: before")
        after = _values(runs, f"{subject}: this build")
        pairs = sorted(before.keys() & after.keys())
        if not pairs:
            continue
        ratios = [after[number] / before[number] for number in pairs]
        unit = next(run.unit for run in runs if run.subject.startswith(subject))
        lines.append(
            f"| {subject} | {median(before.values()):.3g} {unit} "
            f"| {median(after.values()):.3g} {unit} "
            f"| {median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}) | {len(pairs)} |"
        )
    return lines


def _values(runs: Sequence[Run], subject: str) -> dict[int, float]:
    """The value of each round in which the subject came to one."""
    return {run.round: run.value for run in runs if run.subject == subject and run.value}


def _done(settings: Settings, backlog: Backlog, sink: str) -> Done:
    return online_done(settings, backlog.topic) if sink == "online" else offline_done(settings)


def _run(found: Span, seconds_a_tick: float, memory_mb: float) -> Run:
    return Run(
        value=seconds_a_tick * 1e6,
        unit=MICROSECONDS,
        ticks=found.ticks,
        seconds=found.seconds,
        cpu=found.cpu,
        memory_mb=memory_mb,
    )


def _ask(port: int, symbols: Sequence[str], requests: int) -> None:
    """Ask for the features of the symbols again and again, over one connection."""
    entities = [{"symbol": symbol} for symbol in symbols]
    body = msgspec.json.encode({"features": FEATURES, "entities": entities})
    headers = {"Content-Type": "application/json"}
    with closing(http.client.HTTPConnection(HOST, port, timeout=30)) as connection:
        for _ in range(requests):
            connection.request("POST", "/features/batch", body, headers)
            response = connection.getresponse()
            content = response.read()
            if response.status != 200:
                raise Failed(f"the server answered {response.status}: {content[:300]!r}")
