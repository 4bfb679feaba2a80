"""The check of training sets finds each thing that can be wrong with a cell."""

from __future__ import annotations

import math

import pytest

from tests.checker.findings import Findings
from tests.checker.rows import Kept, Walked
from tests.checker.sources import Source
from tests.checker.topics import Topic
from tests.checker.training_sets import Answer, Cell, check_same, check_served
from tests.oracle.features import Feature
from tests.oracle.messages import SourceSpec

NAME = "current_price@1.0.0"
SECOND = 10**9
SPEC = SourceSpec("price", "t", ("symbol",), (("price", True, None),))
SOURCE = Source(SPEC, (), {1: (Feature(NAME, "last", 0, 1),)}, {NAME: 5 * SECOND}, 64)
TICKS = [
    Kept(10 * SECOND, 0, 10 * SECOND, "trade", (1.5,), 10 * SECOND, 1),
    Kept(12 * SECOND, 0, 14 * SECOND, "trade", (2.5,), 12 * SECOND, 2),  # known later
    Kept(20 * SECOND, 0, 20 * SECOND, "reset", (math.nan,), 20 * SECOND, 3),
]
RIGHT: list[tuple[int, Cell]] = [
    (9, (None, "missing", None)),
    (10, (1.5, "ok", 10 * SECOND)),
    (13, (1.5, "ok", 10 * SECOND)),
    (14, (2.5, "ok", 12 * SECOND)),
    (18, (2.5, "stale", 12 * SECOND)),
    (21, (None, "warming", 20 * SECOND)),
]


def found(moment: int, cell: Cell) -> int:
    walked = Walked(SOURCE, Topic("t", bytes(16), (0,), (3,)), keeps=True, kept={"A": TICKS})
    findings = Findings()
    check_served(
        [Answer(None, [("A", moment * SECOND)], {NAME: [cell]})], {"price": walked}, findings
    )
    return findings.differences["training set differs"]


@pytest.mark.parametrize(("moment", "cell"), RIGHT)
def test_what_is_right_is_no_difference(moment: int, cell: Cell) -> None:
    assert found(moment, cell) == 0


@pytest.mark.parametrize(
    ("moment", "cell"),
    [
        (9, (1.5, "ok", 10 * SECOND)),  # a leak
        (13, (2.5, "ok", 12 * SECOND)),  # it was not known yet
        (14, (1.5, "ok", 10 * SECOND)),
        (14, (2.5000000001, "ok", 12 * SECOND)),
        (14, (2.5, "stale", 12 * SECOND)),
        (18, (2.5, "ok", 12 * SECOND)),
        (14, (None, "missing", None)),
        (21, (2.5, "ok", 20 * SECOND)),
    ],
)
def test_what_is_wrong_is_found(moment: int, cell: Cell) -> None:
    assert found(moment, cell) == 1


def test_an_answer_that_has_changed_is_found() -> None:
    then = Answer(5, [("A", 1), ("B", 1)], {NAME: [(1.5, "ok", 1), (None, "missing", None)]})
    now = then._replace(cells={NAME: [(1.5, "ok", 1), (2.5, "ok", 1)]})
    findings = Findings()
    check_same([(then, then), (then, now)], findings)
    assert findings.differences == {"answer of the past changed": 1}
