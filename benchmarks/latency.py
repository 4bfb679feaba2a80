"""From the moment at which a tick was due to be sent until its value is read over HTTP.

Open loop: the producer (`paced.py`) follows its schedule whatever happens, and a tick's latency
begins when it was due, so a stall is paid for by every tick that was due meanwhile. A client asks
for the newest prices of some symbols over and over; a tick is read with the first answer that holds
it or a later one of its symbol, at the moment when that answer has arrived. So a figure is up to
one pause between two answers too long, and never too short; those pauses are reported.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import numpy as np

from benchmarks.backlog import new_topics
from benchmarks.load import await_port
from benchmarks.prober import Heard, probe
from benchmarks.processes import THIS, Build, Child, processor_seconds, resident_mb, running, start
from benchmarks.results import Failed, Run
from benchmarks.services import Services, environment
from benchmarks.workers import await_shares, start_worker
from pipelines.kafka.topics import Topic
from tickwell.embedded.ports import keep_port
from tickwell.settings import Settings

RATE = 5_000
SYMBOLS = 100
PROBED = 20
PAUSE_SECONDS = 0.005
LEAD_SECONDS = 10.0
"""Ticks that are sent before any counts: the broker compiles its way of taking them meanwhile."""

DRAIN_SECONDS = 5.0
PERCENTILES = (50.0, 99.0, 99.9, 100.0)


Meanwhile = Callable[[Settings, float, float], AbstractContextManager[None]]
"""What goes on from one moment of the monotonic clock to another: those of the ticks that count."""


def latency(
    services: Services,
    seconds: float,
    sinks: tuple[str, ...],
    build: Build = THIS,
    meanwhile: Meanwhile | None = None,
    prepare: Callable[[Settings], None] = lambda settings: None,
) -> Run:
    """Milliseconds from due to read of 5,000 ticks a second, with workers of `sinks` at work.

    `prepare` is called with the settings before the workers start.
    """
    settings, topic = new_topics(services)
    settings = services.fresh(settings, build)
    prepare(settings)
    with ExitStack() as stack:
        port = keep_port(services.place / "server-port")
        children = [start_server(services, settings, port, build)]
        children += [start_worker(services, settings, sink, build=build) for sink in sinks]
        for child in children:
            stack.callback(child.stop)
        for sink in sinks:
            await_shares(settings, topic, sink, children)
        begin = time.monotonic() + 2.0
        end = begin + LEAD_SECONDS + seconds
        load = stack.enter_context(paced(services, topic, begin, LEAD_SECONDS + seconds))
        if meanwhile is not None:
            stack.enter_context(meanwhile(settings, begin + LEAD_SECONDS, end))
        symbols = [f"S{place}" for place in range(PROBED)]
        while time.monotonic() < begin:
            time.sleep(0.01)
        before = {child.name: processor_seconds(child.pid) for child in [*children, load]}
        last = _last_numbers(RATE, SYMBOLS, PROBED, LEAD_SECONDS + seconds)

        def over(heard: Heard) -> bool:
            read = bool(heard.prices) and bool(np.all(heard.prices[-1] >= last))
            return read or time.monotonic() > end + DRAIN_SECONDS

        heard = probe(port, symbols, PAUSE_SECONDS, over)
        after = {child.name: processor_seconds(child.pid) for child in children}
        memory = resident_mb(children[0].pid)
        load.popen.wait(30)
        if load.popen.returncode:
            load.check()
        late = json.loads(load.log.read_text().splitlines()[-1])["late_ms"]
    found = latencies(heard, begin, RATE, SYMBOLS, LEAD_SECONDS, seconds)
    pauses = np.diff(heard.moments) * 1000
    return Run(
        value=float(np.percentile(found, 99)),
        unit="ms, p99",
        ticks=len(found),
        seconds=heard.moments[-1] - heard.moments[0],
        cpu={name: round(after[name] - before[name], 3) for name in after},
        memory_mb=memory,
        detail={
            "latency_ms": _shown(found),
            "between_answers_ms": _shown(pauses),
            "sent_late_ms": late,
            "rate": RATE,
        },
    )


def latencies(
    heard: Heard, begin: float, rate: float, symbols: int, lead: float, seconds: float
) -> Any:
    """Milliseconds of each tick of the probed symbols that was due within `seconds` after `lead`.

    `heard` has a column a symbol, of which the first tick was due at `begin` + its place / `rate`
    and each other `symbols` / `rate` seconds later; prices count them from 1. Raises `Failed` for a
    tick that was never read.
    """
    moments, prices = np.array(heard.moments), np.array(heard.prices)
    lasts = _last_numbers(rate, symbols, prices.shape[1], lead + seconds)
    found = []
    for place, last in enumerate(lasts):
        first = int(np.ceil((lead * rate - place) / symbols)) + 1
        numbers = np.arange(first, last + 1)
        due = begin + ((numbers - 1) * symbols + place) / rate
        # the newest known at each answer: an answer that steps back takes nothing away
        answers = np.searchsorted(np.maximum.accumulate(prices[:, place]), numbers)
        if answers.max() == len(moments):
            raise Failed(
                f"S{place}: ticks from {numbers[answers == len(moments)][0]} were not read"
            )
        found.append(moments[answers] - due)
    return np.concatenate(found) * 1000


def _last_numbers(rate: float, symbols: int, probed: int, seconds: float) -> Any:
    """How many ticks each probed symbol has that are due within `seconds` of the first."""
    return (int(rate * seconds) - np.arange(probed) - 1) // symbols + 1


def paced(
    services: Services,
    topic: Topic,
    begin: float,
    seconds: float,
    rate: int = RATE,
    symbols: int = SYMBOLS,
) -> Any:
    """The producer of a schedule, as a process."""
    words = (services.settings.kafka, topic.name, rate, symbols, begin, seconds)
    command = ["-m", "benchmarks.paced", *(str(word) for word in words)]
    return running("paced", command, {}, services.place)


def start_server(
    services: Services,
    settings: Settings,
    port: int,
    build: Build = THIS,
    flags: Sequence[str] = (),
) -> Child:
    """Start a server, and wait until it listens."""
    command = ["-m", "tickwell", "serve", "--port", str(port), *flags]
    child = start("server", command, environment(settings), services.place, build)
    await_port(child, port)
    return child


def _shown(milliseconds: Any) -> dict[str, float]:
    values = np.percentile(milliseconds, PERCENTILES).round(3).tolist()
    return dict(zip(("p50", "p99", "p999", "max"), values, strict=True))
