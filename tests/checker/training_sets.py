"""Training sets held against the log: of each row the newest tick that was known at its moment."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tests.checker.arithmetic import explain
from tests.checker.findings import Findings, shown_time
from tests.checker.packed import shown
from tests.checker.rows import Kept, Walked

FEATURES = {
    "current_price@1.0.0": "price",
    "price_volatility@1.0.0": "price",
    "current_volume@1.0.0": "volume",
    "volume_sma_10@1.0.0": "volume",
}
"""Versions that are asked for, which no change of the registry touches, and their sources."""

Cell = tuple[float | None, str, int | None]
"""A value, its status and its event time."""


class Answer(NamedTuple):
    """A training set; `known_at` is None for what was served."""

    known_at: int | None
    rows: Sequence[tuple[str, int]]
    """Symbols, and moments in nanoseconds UTC."""
    cells: Mapping[str, Sequence[Cell]]


def check_served(
    answers: Sequence[Answer], walked: Mapping[str, Walked], findings: Findings
) -> None:
    """Each cell of what was served, by brute force."""
    for answer in answers:
        if answer.known_at is not None:
            continue
        for name, cells in answer.cells.items():
            of_source = walked[FEATURES[name]]
            for (symbol, moment), cell in zip(answer.rows, cells, strict=True):
                findings.count("cells of training sets")
                findings.count(f"cells that are {cell[1]}")
                ticks = of_source.kept.get(symbol, [])
                wrong = _wrong(of_source, name, ticks, moment, cell)
                if wrong is not None:
                    told = f"{name} of {shown(symbol)} at {shown_time(moment)}: {wrong}"
                    findings.differ("training set differs", told)


def check_same(pairs: Sequence[tuple[Answer, Answer]], findings: Findings) -> None:
    """What was answered as of a moment is answered for ever."""
    for then, now in pairs:
        for name, cells in then.cells.items():
            for row, one, other in zip(then.rows, cells, now.cells[name], strict=True):
                findings.count("cells asked again")
                if one != other:
                    told = f"{name} of {row}, known at {then.known_at}: {one}, and now {other}"
                    findings.differ("answer of the past changed", told)


def _wrong(walked: Walked, name: str, ticks: Sequence[Kept], moment: int, cell: Cell) -> str | None:
    """What is wrong with a cell. Of an entity `ticks` are in the order of its log."""
    value, status, event_time = cell
    end = bisect_right(ticks, (moment, math.inf), key=lambda one: (one.event_time, one.sequence))
    number = next((n for n in range(end - 1, -1, -1) if ticks[n].known_at <= moment), None)
    if number is None:
        told = value, status, event_time
        return None if told == (None, "missing", None) else f"{told}, must be missing"
    newest = ticks[number]
    if event_time != newest.event_time:
        return f"it is of {event_time}, must be of {newest.event_time}, {newest}"
    feature = next(f for fs in walked.source.schemas.values() for f in fs if f.name == name)
    window, closed = window_at(ticks, number, walked.source.depth)
    max_age = walked.source.max_age_ns[name]
    is_old = max_age is not None and moment - newest.event_time > max_age
    if (status == "stale") != is_old and status in ("ok", "stale"):
        return f"{status} of {(moment - newest.event_time) / 1e9} s"
    stored = "closed" if status == "missing" else "ok" if status == "stale" else status
    bits = math.nan if value is None else value
    return explain(feature, window, bits, stored, closed)[0]


def window_at(
    ticks: Sequence[Kept], number: int, depth: int
) -> tuple[list[tuple[float, ...]], bool]:
    """The fields of the newest ticks up to one, since the last reset; whether it is closed."""
    window: list[tuple[float, ...]] = []
    closed = False
    for one in ticks[max(0, number + 1 - 2 * depth) : number + 1]:
        if one.op == "trade":
            window.append(one.fields)
            closed = False
        else:
            window.clear()
            closed = closed or one.op == "close"
    return window[-depth:], closed
