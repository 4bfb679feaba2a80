"""What is made of what was seen: targets met, missed and not judged."""

from __future__ import annotations

from collections import Counter
from io import StringIO
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from tickwell.bench.figures import Figures, Run, figures, table
from tickwell.bench.histogram import Histogram
from tickwell.bench.tally import Seen, Tally

RUN = Run("http://h", ["f"], 100, 1.2, 1, 10, 2, None, 1.0)
VALUE = b'{"status":"%b","tier":"%b"}'


def seen(times: list[float], failures: int = 0, **tiers: int) -> Seen:
    histogram = Histogram()
    for time in times:
        histogram.add(time)
    drawn = np.arange(100, 0, -1)
    return Seen(
        histogram.counts(), Counter({"why": failures}), Counter(ok=1), Counter(tiers), drawn
    )


def judged(found: Figures) -> list[bool | None]:
    return [target.is_met for target in found.targets]


@pytest.mark.parametrize(
    ("saw", "met"),
    [
        (seen([0.05] * 1001, hot=91, warm=9), [True, True, True, True]),
        (seen([0.05] * 1000, hot=90, warm=10), [True, False, True, False]),
        (seen([0.05] * 980 + [0.11] * 30, hot=100), [False, True, True, True]),
        (seen([0.05] * 990, 10, hot=100), [True, False, True, True]),
        (seen([0.05] * 1100, 12, hot=100), [True, True, False, True]),
        (seen([0.05] * 2000, warm=5), [True, True, True, None]),
        (seen([], 5), [False, False, False, None]),
        (seen([]), [False, False, False, None]),
    ],
)
def test_targets(saw: Seen, met: list[bool | None]) -> None:
    found = figures(RUN, saw, None)
    assert judged(found) == met
    assert found.is_met is (False not in met)


def test_hits_are_judged_only_where_they_are_meant() -> None:
    few = seen([0.01] * 2000, hot=1, warm=1)
    found = figures(RUN._replace(exponent=0.99), few, 10)
    assert found.targets[-1].is_met is None
    assert "Zipf 0.99" in found.targets[-1].why
    assert figures(RUN, few, 10).targets[-1].is_met is False


def test_a_hot_tier_that_is_dead_misses_its_target() -> None:
    found = figures(RUN, seen([0.05] * 2000, warm=5), None, is_hot_set=True)
    assert (judged(found), found.is_met) == ([True, True, True, False], False)
    assert "no answer was from the hot tier" in found.targets[-1].why
    even = figures(RUN._replace(exponent=0.0), seen([0.05] * 2000, warm=5), None, is_hot_set=True)
    assert even.is_met


def test_the_ideal_stands_beside_what_was_measured() -> None:
    found = figures(RUN, seen([0.01], hot=3, warm=1), 10)
    assert found.tiers == {"hot": 0.75, "warm": 0.25}
    assert found.ideal_hits == pytest.approx(sum(range(91, 101)) / sum(range(101)))
    assert figures(RUN, seen([0.01]), None).ideal_hits is None
    assert figures(RUN, seen([0.01]), float("inf")).ideal_hits == 1


@pytest.mark.parametrize("rate", [None, 500.0])
def test_the_table_says_how_it_was_asked_and_what_failed(rate: float | None) -> None:
    run = RUN._replace(rate=rate, at_once=5)
    text = StringIO()
    console = Console(file=text, width=200)
    console.print(table(run, figures(run, seen([0.01] * 50, 7, hot=3, warm=1), 10)))
    words = " ".join(text.getvalue().split())
    assert ("open loop: 500 requests a second" if rate else "closed loop: 10 connections") in words
    assert "of 5 entities a request" in words
    for said in ("failed: why 7", "values from hot 75.00 %", "an ideal cache of 10 entities"):
        assert said in words
    assert "entities a second 250" in words


def answer(*values: tuple[str, str]) -> bytes:
    return b"[%b]" % b",".join(VALUE % (s.encode(), t.encode()) for s, t in values)


@pytest.mark.parametrize(
    ("status", "body", "failure"),
    [
        (200, answer(("ok", "hot"), ("stale", "warm")), None),
        (200, answer(("ok", "hot"), ("unavailable", "")), "values that are unavailable"),
        (200, answer(("ok", "hot")), "an answer without all of its values"),
        (200, b"", "an answer without all of its values"),
        (503, answer(("ok", "hot"), ("ok", "hot")), "status 503"),
    ],
)
def test_what_counts_as_answered(status: int, body: bytes, failure: str | None) -> None:
    tally = Tally(3, values=2)
    tally.drew([0, 2])
    tally.answered(0.01, status, body)
    found = tally.seen()
    assert found.answered == (failure is None)
    assert dict(found.failures) == ({} if failure is None else {failure: 1})
    assert found.drawn.tolist() == [1, 0, 1]


def test_tallies_of_processes_add_up() -> None:
    tallies = [Tally(2, values=1) for _ in range(2)]
    for tally, tier in zip(tallies, ("hot", "cold"), strict=True):
        tally.drew([1])
        tally.answered(0.01, 200, answer(("ok", tier)))
        tally.failed("lost")
    both = tallies[0].seen().added_to(tallies[1].seen())
    assert both.answered == 2
    assert (both.failures, both.tiers) == ({"lost": 2}, {"hot": 1, "cold": 1})
    assert both.drawn.tolist() == [0, 2]


def test_reasons_are_bounded() -> None:
    tally = Tally(1, 1)
    for number in range(1000):
        tally.failed(f"reason {number}")
    failures: Any = tally.seen().failures
    assert len(failures) <= 21
    assert failures.total() == 1000
