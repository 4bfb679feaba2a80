"""What a change of the registry costs the ticks that come meanwhile, and how soon it is served.

Freshness is that of `latency`, with both workers at work: without a change, with a version that is
recorded each second by a process that runs (`recorder.py`, as a server does it), and with one
that is applied by the command, which is a process that starts. All share the cores of one
machine, so `detail` has the processor time of each process beside the same without changes: what
a change costs wherever there are cores enough.

The first warm value: from the moment at which a version is recorded until a question for it over
HTTP is answered by `ok`, of one symbol of 100 that tick ten times a second each.
"""

from __future__ import annotations

import http.client
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from threading import Event, Thread

import numpy as np

from benchmarks.backlog import new_topics
from benchmarks.latency import SYMBOLS, Meanwhile, latency, paced, start_server
from benchmarks.prober import HEADERS
from benchmarks.processes import run_to_end, running
from benchmarks.results import Failed, Run
from benchmarks.services import Services, environment
from benchmarks.workers import await_shares, start_worker
from registry.database.engine import connect
from registry.lifecycle.audit import By
from registry.lifecycle.registry import Registry
from tickwell.embedded.ports import keep_port
from tickwell.settings import Settings

QUIET = "no change"
RECORDED = "a version recorded each second"
COMMAND = "`features apply` each second"
FIRST_VALUE = "recorded to its first warm value"
SINKS = ("online", "offline")

EVERY_SECONDS = 1.0
"""Pause between two changes; a command that takes longer is followed by the next one at once."""

VERSIONS = 50
"""Versions whose first warm value is waited for."""

WARM_RATE = 1_000
"""Ticks a second: ten of each symbol."""

SETTLE_SECONDS = 6.0
"""Ticks before the first version is recorded."""

GIVEN_UP_SECONDS = 10.0
POLL_SECONDS = 0.005
FIRST_WINDOW = 30
"""Ticks of the first version's window: each version has one more, so none is the same."""


def freshness(services: Services, seconds: float, subject: str) -> Run:
    """Milliseconds from due to read, 99th percentile, with the changes of `subject` meanwhile."""
    how: dict[str, Meanwhile] = {
        QUIET: _nothing,
        RECORDED: _recorder(services),
        COMMAND: _commands(services),
    }
    return latency(services, seconds, SINKS, meanwhile=how[subject])


@contextmanager
def _nothing(settings: Settings, begin: float, end: float) -> Iterator[None]:
    yield


def _recorder(services: Services) -> Meanwhile:
    @contextmanager
    def record(settings: Settings, begin: float, end: float) -> Iterator[None]:
        words = (settings.postgres, begin, end, EVERY_SECONDS, FIRST_WINDOW)
        command = ["-m", "benchmarks.recorder", *map(str, words)]
        with running("recorder", command, {}, services.place) as child:
            yield
            child.popen.wait(GIVEN_UP_SECONDS)
            if child.popen.returncode:
                child.check()

    return record


def _commands(services: Services) -> Meanwhile:
    @contextmanager
    def apply(settings: Settings, begin: float, end: float) -> Iterator[None]:
        stopped, failed = Event(), list[Exception]()

        def work() -> None:
            at, number = begin, 0
            while at < end and not stopped.wait(max(0.0, at - time.monotonic())):
                number += 1
                try:
                    _apply(services, settings, FIRST_WINDOW + number)
                except Failed as error:
                    failed.append(error)
                    return
                at = max(at + EVERY_SECONDS, time.monotonic())

        thread = Thread(target=work, name="commands")
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            thread.join()
        if failed:
            raise failed[0]

    return apply


def _apply(services: Services, settings: Settings, ticks: int) -> None:
    file = services.place / f"mean_{ticks}.toml"
    file.write_text(
        f'[[feature]]\nname = "mean_{ticks}"\nversion = "1.0.0"\nentity = ["symbol"]\n'
        f'source = "price"\nexpression = "mean(price, {ticks})"\n'
    )
    command = ["-m", "tickwell", "features", "apply", "--yes", "--features", str(file)]
    run_to_end("apply", command, environment(settings), services.place)


def first_values(services: Services, versions: int = VERSIONS) -> Run:
    """Seconds from a version that is recorded until it is read as `ok`: the worst, and all."""
    settings, topic = new_topics(services)
    settings = services.fresh(settings)
    with ExitStack() as stack:
        port = keep_port(services.place / "server-port")
        children = [start_server(services, settings, port)]
        children += [start_worker(services, settings, sink) for sink in SINKS]
        for child in children:
            stack.callback(child.stop)
        for sink in SINKS:
            await_shares(settings, topic, sink, children)
        engine = connect(settings.postgres)
        stack.callback(engine.dispose)
        registry = Registry(engine, By("bench"))
        begin = time.monotonic() + 1.0
        seconds = SETTLE_SECONDS + versions * (1.0 + GIVEN_UP_SECONDS)  # it is stopped at the end
        stack.enter_context(paced(services, topic, begin, seconds, WARM_RATE))
        time.sleep(max(0.0, begin + SETTLE_SECONDS - time.monotonic()))
        recorded, waited = [], []
        for number in range(versions):
            name = f"mean_{FIRST_WINDOW + number}"
            schema = {"source": "price", "expression": f"mean(price, {FIRST_WINDOW + number})"}
            began = time.monotonic()
            registry.create_feature_version(name, "1.0.0", schema)
            done = time.monotonic()
            recorded.append(done - began)
            waited.append(_first_value(port, name, f"S{number % SYMBOLS}", done))
            # at another moment of the quarter second in which everybody looks, and of the ticks
            time.sleep(0.3 + 0.037 * number % 0.5)
            for child in children:
                child.check()
    detail = {
        "waited_ms": _shown(waited),
        "recorded_ms": _shown(recorded),
        "versions": versions,
    }
    return Run(value=max(waited), unit="s, worst", detail=detail)


def _first_value(port: int, name: str, symbol: str, recorded: float) -> float:
    body = json.dumps({"features": [name], "entity_type": "symbol", "entity_value": symbol})
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        while (waited := time.monotonic() - recorded) < GIVEN_UP_SECONDS:
            connection.request("POST", "/features/online", body, HEADERS)
            response = connection.getresponse()
            answer = json.loads(response.read())
            if response.status == 200 and answer["features"][name]["status"] == "ok":
                return time.monotonic() - recorded
            time.sleep(POLL_SECONDS)
    raise Failed(f"{name} had no value after {waited:.1f} s: {answer}")


def _shown(seconds: Sequence[float]) -> dict[str, float]:
    found = np.percentile(np.array(seconds) * 1_000, (50, 90, 100)).round(1).tolist()
    return dict(zip(("p50", "p90", "max"), found, strict=True))


def table(runs: Sequence[Run]) -> list[str]:
    """Freshness beside that of the same round without a change, and what a change costs."""
    good = [run for run in runs if not run.error]
    quiet = {run.round: run for run in good if run.subject == QUIET}
    lines = [
        "| due to read, ms: median of the rounds | p50 | p99 | p99 / without (range) "
        "| processor time beyond that without, ms a second |",
        "|---|---|---|---|---|",
    ]
    for subject in (QUIET, RECORDED, COMMAND):
        found = [run for run in good if run.subject == subject]
        if not found:
            continue
        p50, p99 = (
            statistics.median(run.detail["latency_ms"][name] for run in found)
            for name in ("p50", "p99")
        )
        pairs = [(run, quiet[run.round]) for run in found if run.round in quiet]
        ratios = [(run.value or 0) / (other.value or 1) for run, other in pairs]
        shown, cost = "", ""
        if subject != QUIET and pairs:
            shown = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            cost = ", ".join(
                f"{name} {statistics.median(more):.0f}" for name, more in _beyond(pairs).items()
            )
        lines.append(f"| {subject} | {p50:.1f} | {p99:.1f} | {shown} | {cost} |")
    first = [run for run in good if run.subject == FIRST_VALUE]
    if first:
        worst = max(run.value or 0 for run in first)
        median = statistics.median(run.detail["waited_ms"]["p50"] for run in first) / 1_000
        versions = sum(run.detail["versions"] for run in first)
        lines += [
            "",
            f"Recorded to the first warm value over HTTP, {versions} versions: median "
            f"{median:.2f} s, worst {worst:.2f} s.",
        ]
    return lines


def _beyond(pairs: Sequence[tuple[Run, Run]]) -> dict[str, list[float]]:
    """Of each process the milliseconds a second that it took beyond those without a change."""
    names = {name for run, other in pairs for name in run.cpu.keys() & other.cpu.keys()}
    return {
        name: [
            (run.cpu[name] / run.seconds - other.cpu[name] / other.seconds) * 1_000
            for run, other in pairs
            if name in run.cpu and name in other.cpu
        ]
        for name in sorted(names)
    }
