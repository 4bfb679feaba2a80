"""Resident memory: of workers over millions of ticks, of the server under load."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event

import redis

from benchmarks.backlog import Backlog
from benchmarks.latency import start_server
from benchmarks.prober import Heard, probe
from benchmarks.processes import THIS, Build, processor_seconds, resident_mb
from benchmarks.results import Failed, Run
from benchmarks.services import Services
from benchmarks.timing import Done, span
from benchmarks.workers import check_counted, offline_done, online_done, worker
from tickwell.embedded.ports import keep_port

SAMPLE_SECONDS = 0.5
WARM = 0.1
"""The first figure is of when this part of the ticks is done: every entity was there by then."""

LIMIT_SECONDS = 600.0
CLIENTS = 16
ASKED = 20

Samples = list[tuple[float, int, float]]
"""Seconds, ticks done, MB."""


def of_worker(
    services: Services,
    backlog: Backlog,
    sink: str,
    limit: float = LIMIT_SECONDS,
    build: Build = THIS,
) -> Run:
    """Memory of a worker over a whole backlog: when a tenth is done, at the end, at the most."""
    settings = services.fresh(backlog.settings, build)
    done = online_done(settings, backlog.topic) if sink == "online" else offline_done(settings)
    with worker(services, settings, sink, build=build) as child:
        with _sampled(child.pid, done) as samples:
            found = span(
                done,
                backlog.ticks,
                limit,
                [child],
                lambda: {"worker": processor_seconds(child.pid), **services.processor_seconds()},
            )
        if found.complete:
            check_counted(settings, sink, backlog.ticks, "one")
        last = resident_mb(child.pid)
    warm = [mb for _, count, mb in samples if count >= backlog.ticks * WARM] or [last]
    with redis.Redis.from_url(settings.redis) as store:
        used = store.info("memory")["used_memory"] / 2**20
    return Run(
        value=last,
        unit="MB",
        ticks=found.ticks,
        seconds=found.seconds,
        cpu=found.cpu,
        memory_mb=last,
        detail={
            "first_mb": warm[0],
            "last_mb": last,
            "peak_mb": max(mb for _, _, mb in samples),
            "redis_mb": used if sink == "online" else None,
            "rate": found.rate,
            "samples": [(round(t, 1), count, round(mb, 1)) for t, count, mb in samples],
        },
    )


def of_server(services: Services, backlog: Backlog, seconds: float) -> Run:
    """Memory of the server while clients ask at once and without a pause, for prices of 20 symbols.

    The values are those that an online worker of this backlog left.
    """
    settings = services.fresh(backlog.settings)
    done = online_done(settings, backlog.topic)
    with worker(services, settings, "online") as child:
        span(done, backlog.ticks, LIMIT_SECONDS, [child], dict)
    port = keep_port(services.place / "server-port")
    server = start_server(services, settings, port)
    try:
        heard: list[Heard] = []
        end = time.monotonic() + seconds
        symbols = [f"S{place}" for place in range(ASKED)]

        def ask() -> None:
            heard.append(probe(port, symbols, 0.0, lambda _: time.monotonic() > end))

        if -1.0 in probe(port, symbols, 0.0, lambda heard: bool(heard.prices)).prices[0]:
            raise Failed("a symbol has no price")
        idle, before = resident_mb(server.pid), processor_seconds(server.pid)
        clients = [threading.Thread(target=ask) for _ in range(CLIENTS)]
        with _sampled(server.pid, lambda: (0, 0.0)) as samples:
            for client in clients:
                client.start()
            for client in clients:
                client.join()
        answers = sum(len(one.moments) for one in heard)
        if len(heard) != CLIENTS:
            raise Failed(f"{CLIENTS - len(heard)} of {CLIENTS} clients were turned away")
        return Run(
            value=resident_mb(server.pid),
            unit="MB",
            ticks=0,
            seconds=seconds,
            cpu={"server": round(processor_seconds(server.pid) - before, 3)},
            memory_mb=resident_mb(server.pid),
            detail={
                "first_mb": idle,
                "last_mb": resident_mb(server.pid),
                "peak_mb": max(mb for _, _, mb in samples),
                "answers": answers,
                "answers_a_second": answers / seconds,
            },
        )
    finally:
        server.stop()


@contextmanager
def _sampled(pid: int, done: Done) -> Iterator[Samples]:
    """Memory of a process every half second, and once at the end."""
    samples: Samples = []
    stop, began = Event(), time.monotonic()

    def sample() -> None:
        while True:
            samples.append((time.monotonic() - began, done()[0], resident_mb(pid)))
            if stop.wait(SAMPLE_SECONDS):
                return

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        stop.set()
        thread.join()
        samples.append((time.monotonic() - began, done()[0], resident_mb(pid)))
