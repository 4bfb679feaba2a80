"""The fast way of decoding against the definition, and times."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipelines.ticks.columns import Ticks
from pipelines.ticks.decoder import Decoder
from pipelines.ticks.event_time import LATEST, parse_rfc_3339
from pipelines.ticks.json_scanner import scan
from pipelines.ticks.message_elements import Message, Rejected, split
from pipelines.ticks.reference_decoder import judge
from pipelines.ticks.scanned_columns import Layout
from pipelines.ticks.source_reading import Reading
from registry.definitions import Field, Source, TimeUnit
from registry.features_file import read
from registry.formats.entity_name import entity_id
from tests.oracle.messages import Record, SourceSpec
from tests.oracle.messages import read as oracle_read
from tests.support.examples import examples
from tests.support.logs import NOW_MS, messages, run_of
from tests.support.names import entities_of, name_of

PRICE, _, POSITION = read().sources


def told(ticks: Ticks) -> dict[tuple[int, int], object]:
    """What came of each tick, by offset and index."""
    found: dict[tuple[int, int], object] = {
        (rejected.offset, rejected.index): rejected.reason for rejected in ticks.rejected
    }
    for i in range(len(ticks)):
        fields = tuple(None if math.isnan(x) else x for x in ticks.fields[i].tolist())
        found[int(ticks.offset[i]), int(ticks.index[i])] = (
            name_of(ticks.data, ticks.keys[i]),
            int(ticks.tick_time[i]),
            int(ticks.seq[i]),
            int(ticks.op[i]),
            fields,
            ticks.original(i),
        )
    return found


@examples(4)
@given(st.lists(messages(), max_size=12))
def test_a_tick_does_not_depend_on_the_others_of_its_run(
    values: list[tuple[bytes | None, bytes | None]],
) -> None:
    together = told(Decoder(PRICE).decode(run_of(values)))
    alone = {
        (offset, index): what
        for offset, value in enumerate(values)
        for (_, index), what in told(Decoder(PRICE).decode(run_of([value]))).items()
    }
    assert together == alone


@examples(4)
@given(messages())
def test_the_compiled_way_is_the_definition(message: tuple[bytes | None, bytes | None]) -> None:
    assert_is_the_definition(message)


def assert_is_the_definition(message: tuple[bytes | None, bytes | None]) -> None:
    """Decoding a message gives what judging it says, to the bits and the sign of zero."""
    key, value = message
    found = told(Decoder(PRICE).decode(run_of([message])))
    defined: dict[tuple[int, int], object] = {}
    whole, reading = Message(value, key, NOW_MS * 10**6), Reading.of(PRICE)
    try:
        for element in split(whole, reading):
            try:
                tick = judge(element, whole, reading)
            except Rejected as rejected:
                defined[0, element.index] = rejected.reason
            else:
                fields = tuple(None if math.isnan(x) else x for x in tick.fields)
                name = entity_id(tick.key)
                defined[0, element.index] = (name, tick.tick_time, tick.seq, tick.op, fields)
    except Rejected as rejected:
        defined[0, 0] = rejected.reason
    told_of = {k: v if isinstance(v, str) else v[:5] for k, v in found.items()}  # type: ignore[index]
    assert told_of == defined
    assert repr(sorted(told_of.items())) == repr(sorted(defined.items()))  # -0.0 is not 0.0


def test_an_element_is_held_against_the_key_of_its_own_message() -> None:
    """As many ticks as messages, yet not one of each."""
    array = (
        b'[{"symbol":"X","price":1,"ts":1700000000000},{"symbol":"A","price":1,"ts":1700000000000}]'
    )
    found = told(Decoder(PRICE).decode(run_of([(b"X", b"broken"), (b"A", array)])))
    assert (found[0, 0], found[1, 0]) == ("malformed", "key-mismatch")
    assert found[1, 1][0] == "A"  # type: ignore[index]


def test_a_key_that_no_tick_can_have_is_kept_once() -> None:
    """With each of ten thousand rejected elements it would take gigabytes."""
    key, array = b"k" * 900_000, b"[" + b",".join([b"0"] * 10_000) + b"]"
    (rejected,) = Decoder(PRICE).decode(run_of([(key, array)])).rejected
    assert (rejected.reason, rejected.index) == ("key-mismatch", 0)
    assert (rejected.key, rejected.value) == (key, array)


WIDE = Source("wide", "t", ("symbol",), tuple(Field(f"f{i}", optional=i > 0) for i in range(100)))


@pytest.mark.parametrize(
    "value",
    [
        b'{"symbol":"A","f0":1,"f36":2}',  # no ts, whose place is 64 after that of f36
        b'{"f0":1,"f63":2,"ts":1700000000000}',  # no symbol
        b'{"symbol":"A","f64":2,"ts":1700000000000}',  # no f0
    ],
)
def test_of_a_wide_source_no_field_stands_for_another(value: bytes) -> None:
    ticks = Decoder(WIDE).decode(run_of([(b"A", value)]))
    assert [rejected.reason for rejected in ticks.rejected] == ["malformed"]
    whole = b'{"symbol":"A","f0":1,"f36":2,"f64":3,"seq":9,"ts":1700000000000}'
    assert not scan(run_of([(b"A", whole)]), Layout.of(WIDE), np.array([NOW_MS * 10**6])).left.size


@pytest.mark.parametrize(("unit", "digits"), [("s", 10), ("ms", 13), ("us", 16), ("ns", 19)])
def test_times_of_every_unit_take_the_compiled_pass(unit: TimeUnit, digits: int) -> None:
    source = msgspec.structs.replace(PRICE, ts_unit=unit)
    ts, at = str(NOW_MS * 10**6)[:digits], np.array([NOW_MS * 10**6])

    def found(seq: int) -> Any:
        value = f'{{"symbol":"A","price":1,"ts":{ts},"seq":{seq}}}'.encode()
        return scan(run_of([(b"A", value)]), Layout.of(source), at).ticks

    assert found(1).tick_time.tolist() == [int(ts.ljust(19, "0"))]
    for seq, is_taken in (
        *((2**63 - 1, True), (2**63, False)),
        *((-(2**63) + 1, True), (-(2**63), False)),
    ):
        assert found(seq).seq.tolist() == ([seq] if is_taken else [])


@pytest.mark.parametrize("at", [-(2**63), -1, 9_223_372_036_855, 2**63 - 1])
def test_a_record_with_an_absurd_timestamp_is_still_stored(at: int) -> None:
    """Where producers set them; stores hold 64 bits of nanoseconds."""
    values = [(b"A", b'{"symbol":"A","price":1,"ts":1700000000000}'), (b"A", b"broken")]
    ticks = Decoder(PRICE).decode(run_of(values, at))
    known = [*ticks.known_at.tolist(), *(rejected.known_at for rejected in ticks.rejected)]
    assert len(set(known)) == 1
    assert -(10**6) <= known[0] <= LATEST


def _float(number: int | float) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf


json_numbers = st.one_of(
    st.integers().map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.from_regex(r"\A-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?\Z"),
)


@examples(10)
@given(json_numbers)
@example("9007199254740993")
@example("0.1")
@example("1e-400")
@example("2.2250738585072011e-308")
def test_numbers_are_what_python_makes_of_them(number: str) -> None:
    exact = _float(json.loads(number))
    value = f'{{"symbol":"A","price":{number},"ts":{NOW_MS}}}'.encode()
    ticks = Decoder(PRICE).decode(run_of([(b"A", value)]))
    if math.isfinite(exact):
        assert ticks.fields[0, 0].tobytes() == np.float64(exact).tobytes()
    else:
        assert [rejected.reason for rejected in ticks.rejected] == ["not-finite"]


def test_a_key_given_twice_means_its_last_value() -> None:
    value = b'{"symbol":"B","symbol":"A","price":1,"price":2,"ts":1700000000000}'
    ticks = Decoder(PRICE).decode(run_of([(b"A", value)]))
    assert (entities_of(ticks), ticks.fields[0, 0]) == (["A"], 2.0)


def test_a_position_has_two_keys_and_a_default() -> None:
    value = b'{"portfolio":"P1","symbol":"AAPL","quantity":-300,"ts":1700000000000}'
    ticks = Decoder(POSITION).decode(run_of([(b"P1", value)]))
    assert entities_of(ticks) == ["P1\x1fAAPL"]
    assert ticks.fields.tolist() == [[-300.0, 1.0]]


@pytest.mark.parametrize(
    "value",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"symbol":"A","price":' + b"9" * 5000 + b',"ts":1700000000000}',
        b'\xef\xbb\xbf{"symbol":"A","price":1,"ts":1700000000000}',
        b'{"symbol":"A","price":1,"ts":1700000000000,"other":"\xff"}',
        b'{"symbol":"A","price":1,"ts":1700000000000}{"symbol":"A","price":1,"ts":1700000000000}',
        b'{"symbol":"A","price":1,"ts":1700000000000,"x":' + b"[" * 500 + b"]" * 500 + b"}",
        b'{"symbol":"A","x":"' + b'\\"' * 130_000,
        b'["' + b"[" * 1000 + b'"]',
    ],
)
def test_hostile_messages_are_what_the_oracle_says(value: bytes) -> None:
    spec = SourceSpec("price", "t", ("symbol",), (("price", True, None), ("size", False, None)))
    record = Record("t", 0, 0, NOW_MS, b"A", value)
    reasons = {(0, index): reason for index, reason in oracle_read(record, spec)}
    assert told(Decoder(PRICE).decode(run_of([(b"A", value)]))) == reasons


@pytest.mark.parametrize("brackets", [b"[]", b'{"a":}'])
def test_depth_is_judged_alike_however_deep_the_program_is(brackets: bytes) -> None:
    opening, closing = brackets[:-1], brackets[-1:]

    def verdict(depth: int, frames: int) -> list[str]:
        if frames:
            return verdict(depth, frames - 1)
        inner = opening * depth + b"1" + closing * depth
        value = b'{"symbol":"A","price":1,"ts":1700000000000,"x":' + inner + b"}"
        ticks = Decoder(PRICE).decode(run_of([(b"A", value)]))
        return [rejected.reason for rejected in ticks.rejected]

    for frames in (0, 300):
        assert verdict(499, frames) == []
        assert verdict(500, frames) == ["malformed"]


def test_half_a_surrogate_pair_is_no_name() -> None:
    value = b'{"symbol":"\\ud800","price":1,"ts":1700000000000}'
    for key in (b"\xed\xa0\x80", b"\\ud800"):
        (rejected,) = Decoder(PRICE).decode(run_of([(key, value)])).rejected
        assert rejected.reason == "malformed"


@given(
    st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1)),
    st.integers(-14 * 60, 14 * 60),
    st.integers(0, 999),
)
def test_rfc_3339(moment: datetime, offset: int, nanoseconds: int) -> None:
    sign, (hours, minutes) = "-" if offset < 0 else "+", divmod(abs(offset), 60)
    text = f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond:06d}{nanoseconds:03d}"
    text += f"{sign}{hours:02d}:{minutes:02d}"
    exact = (moment.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) - timedelta(
        minutes=offset
    )
    microseconds = exact // timedelta(microseconds=1)
    assert parse_rfc_3339(text) == microseconds * 1000 + nanoseconds


@pytest.mark.parametrize(
    "text",
    [
        *("", "2020-01-01", "2020-01-01T00:00:00", "2020-02-30T00:00:00Z", "٢020-01-01T00:00:00Z"),
        *("2020-01-01T24:00:00Z", "2020-01-01T00:00:00+05:99", "2020-01-01T00:00:00-24:00"),
        *("2020-01-01T00:60:00Z", "2020-01-01T23:59:60Z"),
    ],
)
def test_not_a_time(text: str) -> None:
    assert parse_rfc_3339(text) is None


@pytest.mark.parametrize("ts", [f'"{NOW_MS}"', "1.7e12", "true", "null", "[1]"])
def test_other_forms_of_time_are_not(ts: str) -> None:
    value = f'{{"symbol":"A","price":1,"ts":{ts}}}'.encode()
    (rejected,) = Decoder(PRICE).decode(run_of([(b"A", value)])).rejected
    assert rejected.reason == ("malformed" if ts.startswith('"') else "unknown-field-type")


@pytest.mark.parametrize(
    "ts", ["0001-01-01T00:00:00Z", "1600-01-01T00:00:00Z", "9999-12-31T23:59:59Z"]
)
def test_text_times_far_from_now_are_out_of_range(ts: str) -> None:
    """The first is what Go writes for a time that was never set."""
    values = [(b"A", b'{"symbol":"A","price":1,"ts":"%b"}' % ts.encode())] * 2
    reasons = [rejected.reason for rejected in Decoder(PRICE).decode(run_of(values)).rejected]
    assert reasons == ["out-of-range"] * 2


def test_text_times_are_taken() -> None:
    tick = {"symbol": "A", "price": 1, "ts": "2023-11-14T22:13:20.000000001Z"}
    ticks = Decoder(PRICE).decode(run_of([(b"A", json.dumps(tick).encode())]))
    assert ticks.tick_time.tolist() == [1_700_000_000_000_000_001]


spaces = st.sampled_from(["", "", " ", "\n", "\t\r "])
numbers = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers(-(10**22), 10**22).map(str),
    st.from_regex(r"-?(0|[1-9][0-9]{0,9})(\.[0-9]{1,12})?([eE][+-]?[0-9]{1,3})?", fullmatch=True),
    st.from_regex(r"[-+.0-9eE]{1,6}", fullmatch=True),
)
texts = st.sampled_from(['"A"', '"AAPL"', '""', '"\\u0041"', '"é"', "1", "null"])
members = st.one_of(
    st.tuples(st.just("symbol"), texts),
    st.tuples(st.sampled_from(["price", "size", "ts", "seq", "x"]), numbers),
    st.tuples(st.just("ts"), st.integers(NOW_MS - 2000, NOW_MS + 2000).map(str)),
    st.tuples(st.sampled_from(["seq", "size", "op"]), st.just("null")),
    st.tuples(st.just("op"), st.sampled_from(['"trade"', '"reset"', '"cancel"', "1"])),
    st.tuples(st.sampled_from(["x", "é", "pric"]), st.sampled_from(["{}", "[1]", "true", "nul"])),
)


@st.composite
def spelled(draw: st.DrawFn) -> str:
    """A tick as a producer may spell it, or nearly one."""
    found = [
        ("symbol", '"A"'),
        ("price", draw(numbers)),
        ("ts", str(NOW_MS)),
        *draw(st.lists(members, max_size=3)),
    ]
    order = draw(st.permutations(found))
    written = (
        f'{draw(spaces)}"{name}"{draw(spaces)}:{draw(spaces)}{value}{draw(spaces)}'
        for name, value in order
    )
    return "{" + ",".join(written) + draw(st.sampled_from(["}"] * 9 + [",}"]))


@examples(5)
@given(st.lists(spelled(), max_size=3), st.booleans(), spaces)
def test_the_compiled_way_is_the_definition_however_a_tick_is_spelled(
    ticks: list[str], in_array: bool, space: str
) -> None:
    text = f"{space}[{space}{(space + ',').join(ticks)}]{space}" if in_array else "".join(ticks)
    assert_is_the_definition((b"A", text.encode()))


@given(st.lists(st.floats(1e-6, 1e9), min_size=1, max_size=3), st.booleans())
def test_what_producers_send_takes_the_compiled_way(prices: list[float], in_array: bool) -> None:
    ticks = [{"symbol": "A", "price": price, "ts": NOW_MS, "venue": "X"} for price in prices]
    messages = [ticks] if in_array else ticks
    run = run_of([(b"A", json.dumps(message).encode()) for message in messages])
    scanned = scan(run, Layout.of(PRICE), run.timestamps * 10**6)
    assert len(scanned.left) == 0
    assert scanned.ticks.fields[:, 0].tolist() == prices
