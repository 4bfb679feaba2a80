"""What `serving` measured: a table of all loads, and one of what was aimed at."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

from benchmarks.results import Run

EMPTY_STOCK, EMPTY_OURS = "empty route, stock", "empty route, ours"
THIS_BUILD, BEFORE = "this build", "before"
CHECKED = "this build, checked"
HOT, WORKERS = "this build, checked, from hot", "this build, checked, beside workers"
FEAST, PRECOMPUTED = "Feast", "Feast, precomputed"
MEMORY_MB = 150

Measure = Callable[[Run], float]


def rate(run: Run) -> float:
    """Requests a second."""
    return float(run.detail["a_second"])


def work(run: Run) -> float:
    """Requests in a second of processor time."""
    return 1e6 / (run.value or 0.0)


def time_of(run: Run) -> float:
    """Microseconds of processor time a request."""
    return run.value or 0.0


def p50(run: Run) -> float:
    """Milliseconds."""
    return float(run.detail["ms"]["p50"])


def p99(run: Run) -> float:
    """Milliseconds."""
    return float(run.detail["ms"]["p99"])


class Aim(NamedTuple):
    """A measure of a subject, or its ratio to that of another one in the same round.

    `least` or `most` is what it is to be.
    """

    load: str
    subject: str
    what: str
    measure: Measure
    beside: str = ""
    least: float | None = None
    most: float | None = None
    beside_load: str = ""
    """That of the other subject, where it is another one."""


ONE, BATCH = "one, 32 connections", "batch, 32 connections"
RATE, WORK, P99 = "requests/s", "requests a second of processor time", "p99"
AIMS = (
    Aim(ONE, CHECKED, RATE, rate, EMPTY_STOCK, least=0.85),
    Aim(ONE, CHECKED, RATE, rate, EMPTY_OURS, least=0.70),
    Aim(ONE, CHECKED, RATE, rate, FEAST, least=20),
    Aim(ONE, CHECKED, RATE, rate, PRECOMPUTED, least=20),
    Aim(ONE, HOT, RATE, rate, CHECKED, least=0.9),
    Aim(ONE, WORKERS, RATE, rate, CHECKED, least=0.7),
    Aim("one, 256 connections", CHECKED, P99, p99, EMPTY_OURS, most=2),
    Aim("one, 1000 connections", CHECKED, P99, p99, EMPTY_OURS, most=2),
    Aim(BATCH, THIS_BUILD, "µs a request", time_of, most=400),
    Aim(BATCH, THIS_BUILD, WORK, work, FEAST, least=35),
    Aim(BATCH, THIS_BUILD, WORK, work, PRECOMPUTED, least=35),
    Aim("compact, 32 connections", THIS_BUILD, RATE, rate, least=5_000),
    Aim("arrow, 1 connections", THIS_BUILD, "p50, ms", p50, most=5),
)
FLAT = f"{ONE}, 500 entities"
"""What the same load with the most entities is compared with."""


def table(runs: Sequence[Run]) -> list[str]:
    """Medians of the rounds, and of ratios of one round the median and range."""
    good = [run for run in runs if not run.error and run.value]
    lines = [
        "| | requests/s | processor µs | p50, p99 ms | MB "
        "| requests/s: it / stock empty | it / empty on ours | it / Feast | it / precomputed |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for subject in dict.fromkeys(run.subject for run in good):
        found = [run for run in good if run.subject == subject]
        load, _, name = subject.partition(": ")
        ratios = [
            ""
            if other == name or (other in (FEAST, PRECOMPUTED) and name.startswith("empty"))
            else _range(_ratios(good, rate, subject, f"{load}: {other}"))
            for other in (EMPTY_STOCK, EMPTY_OURS, FEAST, PRECOMPUTED)
        ]
        lines.append(
            f"| {subject} | {_median(rate, found):,.0f} | {_median(time_of, found):,.1f} "
            f"| {_median(p50, found):.2f}, {_median(p99, found):.2f} | {_most_mb(found):,.0f} "
            f"| {' | '.join(ratios)} |"
        )
    return [*lines, "", *_aims(good)]


def _aims(runs: Sequence[Run]) -> list[str]:
    """Those of which something was measured; in bold what was not reached."""
    lines = ["| aimed at | | measured, median (range) |", "|---|---|---|"]
    flat = [
        Aim(load, THIS_BUILD, P99, p99, THIS_BUILD, beside_load=FLAT)
        for load in dict.fromkeys(run.subject.partition(": ")[0] for run in runs)
        if load.endswith(" entities") and load != FLAT
    ]
    for aim in (*AIMS, *flat):
        subject = f"{aim.load}: {aim.subject}"
        if aim.beside:
            beside = f"{aim.beside_load or aim.load}: {aim.beside}"
            values = _ratios(runs, aim.measure, subject, beside)
            named = beside if aim.beside_load else aim.beside
            what = f"{aim.what}: it / {named}"
        else:
            values = [aim.measure(run) for run in runs if run.subject == subject]
            what = aim.what
        if values:
            bound = f"≥ {aim.least:,}" if aim.least is not None else "flat"
            bound = bound if aim.most is None else f"≤ {aim.most:,}"
            is_missed = not _reaches(aim, statistics.median(values))
            shown = _bold(_range(values), is_missed)
            lines.append(f"| {subject}; {what} | {bound} | {shown} |")
    ours = [run for run in runs if run.subject.partition(": ")[2].startswith(THIS_BUILD)]
    if ours:
        most = _most_mb(ours)
        shown = _bold(f"{most:,.0f}", most > MEMORY_MB)
        lines.append(f"| this build: the most resident memory, MB | ≤ {MEMORY_MB} | {shown} |")
    return lines


def _reaches(aim: Aim, value: float) -> bool:
    is_enough = aim.least is None or value >= aim.least
    return is_enough and (aim.most is None or value <= aim.most)


def _bold(text: str, is_bold: bool) -> str:
    return f"**{text}**" if is_bold else text


def _ratios(runs: Sequence[Run], measure: Measure, subject: str, beside: str) -> list[float]:
    """Of each round in which there is a run of both."""
    others = {run.round: measure(run) for run in runs if run.subject == beside}
    return [
        measure(run) / others[run.round]
        for run in runs
        if run.subject == subject and others.get(run.round)
    ]


def _median(measure: Measure, runs: Sequence[Run]) -> float:
    return statistics.median(map(measure, runs))


def _most_mb(runs: Sequence[Run]) -> float:
    return max((run.memory_mb or 0.0 for run in runs), default=0.0)


def _range(values: Sequence[float]) -> str:
    if not values:
        return ""
    middle = statistics.median(values)
    digits = 2 if middle < 10 else 0
    shown = [f"{value:,.{digits}f}" for value in (middle, min(values), max(values))]
    return f"{shown[0]} ({shown[1]} to {shown[2]})"
