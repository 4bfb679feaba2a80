"""Sums over entities: factors of exactly 0, closed entities, and what a result's status is."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from registry.formats.status import RANK, Status, has_value
from registry.language.derived import compile_derived
from registry.language.term_columns import NO_TIME, Terms, add_up, compile_terms
from registry.language.terms import Part
from tests.oracle.derived import STATUSES, Known, expect_sum
from tests.support.examples import examples

NEVER = np.iinfo(np.int64).min
NET = "quantity * multiplier * price"
VALUES = st.sampled_from([0.0, -0.0, 0.0, 1.5, -2.0, 3.0, 1e-200, -1e-200, 1e200, 1e-12])


@st.composite
def parts(draw: st.DrawFn) -> Known:
    status = draw(st.sampled_from([*STATUSES, *["ok"] * 8]))
    value = draw(VALUES) if STATUSES.index(status) < 3 else None
    seldom = status in ("missing", "unavailable") and draw(st.booleans())
    return Known(value, status, None if seldom else draw(st.integers(1, 9)))


entities = st.fixed_dictionaries({name: parts() for name in "abc"})
closes = st.builds(Known, st.just(0.0), st.sampled_from(["ok", "ok", "lagging"]), st.integers(1, 9))
terms = st.recursive(
    st.sampled_from(["a", "b", "c", "a", "b", "c", "0", "2", "0.5"]),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("**/+-"), inner).map(" ".join).map("({})".format),
        inner.map("abs({})".format),
        inner.map("-{}".format),
    ),
    max_leaves=7,
)


def part(known: Known) -> Part:
    value = math.nan if known.value is None else known.value
    return Part(value, Status(known.status), known.event_time)


def bits(value: float | None) -> bytes | None:
    return None if value is None else struct.pack("<d", value)


def total(term: str, *each: Mapping[str, Part]) -> tuple[float | None, Status, int | None]:
    """The value, the status and the time of sum(term) over entities."""
    found = compile_derived(f"sum({term})", "test").evaluate(each)
    return (
        found.value if has_value(found.status) else None,
        found.status,
        found.event_time,
    )


@examples(10)
@given(terms, st.lists(entities, max_size=3), st.lists(closes, max_size=2))
def test_a_sum_is_that_of_the_oracle(
    term: str, each: list[dict[str, Known]], closed: list[Known]
) -> None:
    """To the bits, the sign of zero among them."""
    assume(re.search(r"\b[abc]\b", term))  # an expression without a feature is refused
    wanted = expect_sum(term, each, closed)
    found = compile_derived(f"sum({term})", "test").evaluate(
        [{name: part(known) for name, known in entity.items()} for entity in each],
        [part(known) for known in closed],
    )
    assert (found.status, found.event_time) == (wanted.status, wanted.event_time)
    assert math.isnan(found.value) == (wanted.value is None)
    if wanted.value is not None:
        assert bits(found.value) == bits(wanted.value)


@examples(10)
@given(
    terms,
    st.lists(st.tuples(st.lists(entities, max_size=3), st.lists(st.integers(1, 9))), max_size=4),
)
def test_sums_by_columns_are_those_of_each_row(
    term: str, rows: list[tuple[list[dict[str, Known]], list[int]]]
) -> None:
    """Of many rows at once, with closed entities: values to the bit, statuses and times."""
    assume(re.search(r"\b[abc]\b", term))
    check_columns(term, rows)


def check_columns(term: str, rows: list[tuple[list[dict[str, Known]], list[int]]]) -> None:
    each = [entity for row, _ in rows for entity in row]
    columns = {
        name: Terms.of_feature(
            np.array([part(entity[name]).value for entity in each], np.float64),
            np.array([RANK[Status(entity[name].status)] for entity in each], np.uint8),
            np.array([entity[name].event_time or NO_TIME for entity in each], np.int64),
        )
        for name in "abc"
    }
    of = np.repeat(np.arange(len(rows)), [len(row) for row, _ in rows])
    closes = np.array([max(closed, default=NEVER) for _, closed in rows], np.int64)
    found = add_up(compile_terms(f"sum({term})", "test")(columns), of, len(rows), closes)
    derived = compile_derived(f"sum({term})", "test")
    for number, (row, closed) in enumerate(rows):
        one = derived.evaluate(
            [{name: part(known) for name, known in entity.items()} for entity in row],
            [Part(0.0, Status.OK, time) for time in closed],
        )
        time = int(found.times[number])
        assert list(Status)[found.ranks[number]] == one.status
        assert (None if time == NO_TIME else time) == one.event_time
        assert math.isnan(found.values[number]) == math.isnan(one.value)
        if not math.isnan(one.value):
            assert bits(float(found.values[number])) == bits(one.value)


KNOWN = [
    Known(0.0, "ok", 2),
    Known(-0.0, "ok", 9),
    Known(0.0, "stale", 5),
    Known(0.0, "lagging", 4),
    Known(1.5, "ok", 3),
    Known(None, "missing", None),
    Known(None, "undefined", 1),
]
TERMS = ["a * b", "a * b * c", "a / b * c", "abs(a) * -b + c", "(a - b) * c", "a * (b * c) - 2 * a"]


@pytest.mark.parametrize("term", TERMS)
def test_columns_know_which_zero_counts(term: str) -> None:
    """Each of many entities alone in its row, for all that three parts may be."""
    check_columns(
        term, [([dict(zip("abc", parts, strict=True))], []) for parts in product(KNOWN, repeat=3)]
    )


NOTHING = Part(0.0, Status.OK, 5)
ONE = Part(1.0, Status.OK, 4)
PRICES = {
    "missing": Part(math.nan, Status.MISSING, None),
    "undefined": Part(math.nan, Status.UNDEFINED, 3),
    "warming": Part(math.nan, Status.WARMING, 3),
    "unavailable": Part(math.nan, Status.UNAVAILABLE, None),
    "30 days old": Part(7.0, Status.STALE, 1),
    "behind": Part(7.0, Status.LAGGING, 1),
    "known": Part(7.0, Status.OK, 1),
    "known and below zero": Part(-7.0, Status.OK, 1),
}


@pytest.mark.parametrize("price", PRICES.values(), ids=PRICES)
@pytest.mark.parametrize("zero", [0.0, -0.0])
@pytest.mark.parametrize("term", [NET, f"abs({NET})", f"-abs(2 * ({NET}))", f"{NET} / price"])
def test_a_position_of_nothing_asks_for_no_price(term: str, zero: float, price: Part) -> None:
    quantity = Part(zero, Status.OK, 5)
    value, status, time = total(term, {"quantity": quantity, "multiplier": ONE, "price": price})
    assert (value, status, time) == (0.0, Status.OK, 5)
    assert value is not None
    assert math.copysign(1, value) == 1


@pytest.mark.parametrize("status", [Status.STALE, Status.LAGGING])
def test_age_and_lag_of_a_position_of_nothing_count(status: Status) -> None:
    old = {"quantity": Part(0.0, status, 2), "multiplier": ONE, "price": PRICES["missing"]}
    assert total(NET, old) == (0.0, status, 2)


def test_a_position_that_is_not_known_is_not_nothing() -> None:
    unknown = {"quantity": PRICES["missing"], "multiplier": ONE, "price": PRICES["known"]}
    assert total(NET, unknown) == (None, Status.MISSING, 1)


def test_of_several_zeros_the_one_that_is_known_best_counts() -> None:
    stale, old = Part(0.0, Status.STALE, 9), Part(-0.0, Status.OK, 2)
    for quantity, multiplier in ((stale, old), (old, stale)):
        each = {"quantity": quantity, "multiplier": multiplier, "price": PRICES["missing"]}
        assert total(NET, each) == (0.0, Status.OK, 2)
    newer = {"quantity": NOTHING, "multiplier": old, "price": PRICES["missing"]}
    assert total(NET, newer) == (0.0, Status.OK, 5)


@pytest.mark.parametrize(
    ("term", "value", "status"),
    [
        ("quantity * price + multiplier", 1.0, Status.OK),
        ("multiplier + price * quantity", 1.0, Status.OK),
        ("quantity + price", None, Status.MISSING),
        ("(quantity + price) * multiplier", None, Status.MISSING),
        ("quantity * (price - multiplier)", 0.0, Status.OK),
        ("(multiplier - 1) * price", 0.0, Status.OK),
        ("(quantity * price + multiplier - 1) * price", 0.0, Status.OK),
        ("quantity / price", 0.0, Status.OK),
        ("quantity / quantity", 0.0, Status.OK),
        ("price / quantity", None, Status.MISSING),
        ("multiplier / quantity", None, Status.UNDEFINED),
        ("quantity * (multiplier / quantity)", 0.0, Status.OK),
        ("0 * price", None, Status.MISSING),
        ("tiny * tiny * price", None, Status.MISSING),
        ("tiny * tiny * multiplier", 0.0, Status.OK),
    ],
)
def test_what_a_factor_of_nothing_is(term: str, value: float | None, status: Status) -> None:
    each = {"quantity": NOTHING, "multiplier": ONE, "price": PRICES["missing"]}
    each["tiny"] = Part(1e-200, Status.OK, 4)
    assert total(term, each)[:2] == (value, status)


def test_outside_of_a_sum_nothing_is_a_number_like_any_other() -> None:
    each = {"quantity": NOTHING, "price": PRICES["missing"]}
    found = compile_derived("quantity * price", "test").evaluate([each])
    assert (found.status, found.event_time) == (Status.MISSING, 5)
    negative = {"quantity": NOTHING, "price": Part(-7.0, Status.OK, 1)}
    found = compile_derived("quantity * price", "test").evaluate([negative])
    assert math.copysign(1, found.value) == -1


def test_a_sum_begins_with_nothing() -> None:
    """So a sum of minus zeros is 0.0, as one of no term is."""
    value, _, _ = total("-quantity", {"quantity": NOTHING})
    assert bits(value) == bits(0.0)


def test_who_is_closed_has_no_term() -> None:
    price = compile_derived("sum(price)", "test")
    closes = [Part(0.0, Status.OK, 3), Part(0.0, Status.OK, 8)]
    assert price.evaluate([], closes) == Part(0.0, Status.OK, 8)
    held = {"price": Part(7.0, Status.OK, 5)}
    assert price.evaluate([held], closes) == Part(7.0, Status.OK, 5)
    behind = [*closes, Part(0.0, Status.LAGGING, 2)]
    assert price.evaluate([held], behind) == Part(7.0, Status.LAGGING, 5)
    assert price.evaluate([], behind) == Part(0.0, Status.LAGGING, 8)
    assert price.evaluate([]).status == Status.MISSING
