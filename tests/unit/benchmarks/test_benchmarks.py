"""What the benchmarks make of what was recorded: tables, ratios, latencies. Nothing is timed."""

from __future__ import annotations

import bisect
import math
import statistics
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import builds
from benchmarks.latency import latencies
from benchmarks.peers.price_window import advance
from benchmarks.prober import Heard
from benchmarks.results import Failed, Report, Run
from benchmarks.table import BYTEWAX, LIMIT, OFFLINE, ONLINE, STEADY, STOCK, TWO, tables

MACHINE = {
    "date": "2026-11-25T10:00+00:00",
    "processor": "a processor",
    "cores": 2,
    "memory_gb": 24,
    "system": "Debian",
    "kernel": "6",
    "commit": "abc",
    "python": "3.11",
    "broker": "Apache Kafka 4.3.1",
    "valkey": "9",
    "postgres": "18",
    "libraries": {},
    "peers": {"bytewax": "0.21"},
}
OPTIONS = {"ticks": 1000, "rounds": 2, "prices": "rounded"}


def report(*runs: tuple[str, str, int, float | None]) -> Report:
    made = [
        Run(
            measure=measure,
            subject=subject,
            round=number,
            value=value,
            error="" if value else "it\nended with 1",
        )
        for measure, subject, number, value in runs
    ]
    return Report(machine=MACHINE, options=OPTIONS, runs=made)


def row(text: str, subject: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith(f"| {subject} "))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_ratio_is_of_the_same_round_and_the_median_of_those() -> None:
    shown = tables(
        report(
            *(("online", ONLINE, number, rate) for number, rate in ((1, 100.0), (2, 600.0))),
            *(("online", STOCK, number, rate) for number, rate in ((1, 10.0), (2, 20.0))),
        )
    )
    assert row(shown, STOCK)[1:4] == ["15", "20", "20 × (10 to 30)"]
    assert row(shown, ONLINE)[1:4] == ["350", "600", ""]


def test_two_workers_are_beside_one_while_all_partitions_move() -> None:
    shown = tables(
        report(("online", ONLINE, 1, 1.0), ("online", STEADY, 1, 100.0), ("online", TWO, 1, 180.0))
    )
    assert row(shown, TWO)[3] == "1.80 × (1.80 to 1.80) (two / one)"


def test_a_run_that_failed_is_told_and_in_no_figure() -> None:
    shown = tables(
        report(
            ("offline", OFFLINE, 1, 90.0),
            ("offline", LIMIT, 1, None),
            ("offline", LIMIT, 2, 100.0),
            ("online", BYTEWAX, 1, None),
        )
    )
    assert row(shown, LIMIT)[1:4] == ["100", "100", ""]
    assert f"- offline, {LIMIT}, round 1: it ended with 1" in shown
    assert f"| {BYTEWAX}" not in shown


RATE, SYMBOLS, LEAD, SECONDS = 1000, 4, 0.05, 0.1


@given(st.lists(st.floats(0.0, 0.02), min_size=20, max_size=40), st.integers(1, 3))
def test_a_tick_is_read_with_the_first_answer_that_holds_it_or_a_later_one(
    pauses: list[float], probed: int
) -> None:
    moments = np.cumsum(pauses).tolist()
    moments.append(1.0)
    due = {p: [n / RATE for n in range(p, int(RATE * (LEAD + SECONDS)), SYMBOLS)] for p in range(4)}
    delay = 0.003
    prices = [
        [float(bisect.bisect(due[p], moment - delay)) for p in range(probed)] for moment in moments
    ]
    expected = [
        (next(m for m, row in zip(moments, prices, strict=True) if row[p] >= number) - at) * 1000
        for p in range(probed)
        for number, at in enumerate(due[p], 1)
        if at >= LEAD
    ]
    found = latencies(Heard(moments, prices), 0.0, RATE, SYMBOLS, LEAD, SECONDS)
    assert found.tolist() == pytest.approx(expected)


def test_a_tick_that_is_never_read_is_an_error() -> None:
    with pytest.raises(Failed, match="were not read"):
        latencies(Heard([1.0], [[3.0]]), 0.0, RATE, SYMBOLS, LEAD, SECONDS)


def test_the_peers_compute_the_same_features() -> None:
    walk = np.cumprod(np.random.default_rng(1).uniform(0.99, 1.01, 60)).tolist()
    prices: list[float] = []
    returns: list[float] = []
    for count, price in enumerate(walk, 1):
        newest, short, long, volatility = advance(prices, returns, price)
        window = walk[:count]
        logs = [math.log(after / before) for before, after in pairwise(window[-21:])]
        assert newest == price
        assert short == (pytest.approx(statistics.mean(window[-5:])) if count >= 5 else None)
        assert long == (pytest.approx(statistics.mean(window[-20:])) if count >= 20 else None)
        assert volatility == (pytest.approx(statistics.stdev(logs)) if count >= 21 else None)


def test_builds_are_compared_round_by_round() -> None:
    """The ratio is of pairs: a round in which one of the two failed has none."""
    taken = {"before": {1: 1.0, 2: 2.0, 3: 4.0}, "this build": {1: 1.5, 2: 2.0}}
    runs = [
        Run(measure="builds", subject=f"worker: {name}", round=number, value=value, unit="µs")
        for name, values in taken.items()
        for number, value in values.items()
    ]
    failed = Run(measure="builds", subject="worker: this build", round=3, error="it ended")
    line = builds.table([*runs, failed])[-1]
    assert line == "| worker | 2 µs | 1.75 µs | 1.250 (1.000 to 1.500) | 2 |"
