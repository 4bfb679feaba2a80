"""What a tick does: both decoders and the oracle on `op`, of positions and of symbols."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.ticks.columns import CLOSE, RESET, TRADE, Ticks
from pipelines.ticks.decoder import Decoder
from pipelines.ticks.json_scanner import scan
from pipelines.ticks.message_elements import Message, Rejected, split
from pipelines.ticks.reference_decoder import judge
from pipelines.ticks.scanned_columns import Layout
from pipelines.ticks.source_reading import Reading
from registry.definitions import Source
from registry.features_file import read
from tests.oracle.messages import Record, Tick
from tests.oracle.messages import read as oracle_read
from tests.support.examples import examples
from tests.support.logs import NOW_MS, POSITION, PRICE, position_ticks, run_of, same_double

PRICES, _, POSITIONS = read().sources
CODES = {"trade": TRADE, "reset": RESET, "close": CLOSE}


def decoded(source: Source, tick: dict[str, Any]) -> Ticks:
    key = str(tick[source.key[0]]).encode()
    return Decoder(source).decode(run_of([(key, json.dumps(tick).encode())]))


@examples(2)
@given(position_ticks(), st.sampled_from([None, "trade", "reset", "close", "cancel", "Close", 1]))
def test_both_decoders_and_the_oracle_agree_on_positions(
    tick: dict[str, Any], operation: object
) -> None:
    tick |= {} if operation is None else {"op": operation}
    message = json.dumps(tick).encode()
    record = Record("ticks.position", 0, 0, NOW_MS, b"P", message)
    ((_, expected),) = oracle_read(record, POSITION)
    found = decoded(POSITIONS, tick)
    whole, reading = Message(message, b"P", NOW_MS * 10**6), Reading.of(POSITIONS)
    (element,) = split(whole, reading)
    if not isinstance(expected, Tick):
        assert [one.reason for one in found.rejected] == [expected]
        with pytest.raises(Rejected, match=f"^{expected}: "):
            judge(element, whole, reading)
        return
    defined = judge(element, whole, reading)
    assert defined.op == CODES[expected.op] == found.op[0]
    assert all(map(same_double, defined.fields, expected.fields))
    assert all(map(same_double, found.fields[0].tolist(), expected.fields))


def test_a_close_needs_no_numbers_and_keeps_none() -> None:
    position = {"portfolio": "P", "symbol": "A", "op": "close", "ts": NOW_MS}
    for numbers in ({}, {"quantity": 3, "multiplier": 2}):
        run = run_of([(b"P", json.dumps(position | numbers).encode())])
        scanned = scan(run, Layout.of(POSITIONS), run.timestamps * 10**6)
        assert (len(scanned.left), scanned.ticks.op.tolist()) == (0, [CLOSE])
        assert all(map(math.isnan, scanned.ticks.fields[0]))


@pytest.mark.parametrize("tick", [{}, {"price": 1.5}], ids=["bare", "with a price"])
def test_a_symbol_cannot_be_closed(tick: dict[str, Any]) -> None:
    tick |= {"symbol": "A", "op": "close", "ts": NOW_MS}
    (rejected,) = decoded(PRICES, tick).rejected
    assert rejected.reason == "unsupported-op"
    assert "price has one, so a reset is what" in rejected.detail
    record = Record("ticks.price", 0, 0, NOW_MS, b"A", json.dumps(tick).encode())
    assert list(oracle_read(record, PRICE)) == [(0, "unsupported-op")]


@pytest.mark.parametrize("operation", ["cancel", "correct"])
def test_what_only_a_repair_would_read_is_rejected(operation: str) -> None:
    tick = {"portfolio": "P", "symbol": "A", "quantity": 1, "ts": NOW_MS, "op": operation}
    (rejected,) = decoded(POSITIONS, tick | {"of": {"ts": NOW_MS, "seq": 1}}).rejected
    assert rejected.reason == "unsupported-op"
    assert rejected.detail == f"op '{operation}'; trade, reset and close are supported"
