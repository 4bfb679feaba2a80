"""Sources whose fields lie elsewhere: the fast way, the definition and the oracle agree."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.kafka.run import Run
from pipelines.ticks.columns import NO_SEQ, Ticks
from pipelines.ticks.decoder import Decoder
from pipelines.ticks.json_scanner import scan
from pipelines.ticks.message_elements import Message, PassedOver, Rejected, split
from pipelines.ticks.reference_decoder import judge
from pipelines.ticks.scanned_columns import Layout
from pipelines.ticks.source_reading import Reading
from registry.definitions import Source
from tests.oracle.messages import Record, Tick, read, texts
from tests.support.examples import examples
from tests.support.logs import NOW_MS, run_of
from tests.support.mapped_sources import (
    AROUND,
    BINANCE,
    COINBASE,
    DATABENTO,
    FEEDS,
    KRAKEN,
    POLYGON,
    Feed,
    source_of,
    variants,
)

Told = dict[int, object]


def told(ticks: Ticks) -> Told:
    """What came of each tick of a run of one message, by index."""
    found: Told = {rejected.index: rejected.reason for rejected in ticks.rejected}

    def text(span: np.ndarray[tuple[int], np.dtype[np.int64]]) -> str:
        start, end = span.tolist()
        return ticks.data[start:end].tobytes().decode()

    for i in range(len(ticks)):
        seq = int(ticks.seq[i])
        found[int(ticks.index[i])] = (
            tuple(text(span) for span in ticks.keys[i]),
            int(ticks.tick_time[i]),
            None if seq == NO_SEQ else seq,
            text(ticks.seq_text[i]) or None,
            int(ticks.op[i]),
            repr([None if math.isnan(x) else x for x in ticks.fields[i].tolist()]),
        )
    return found


def _told_of(tick: Tick | str) -> object:
    if isinstance(tick, str):
        return tick
    fields = repr([None if math.isnan(x) else x for x in tick.fields])
    return (
        tick.entity, tick.tick_time, tick.seq, tick.seq_text, int(tick.op == "reset"), fields
    )  # fmt: skip


def run_of_feed(feed: Feed, messages: list[tuple[bytes | None, bytes | None]]) -> Run:
    headers = None if feed.headers is None else [feed.headers] * len(messages)
    return run_of(messages, headers=headers)


def defined(feed: Feed, key: bytes | None, value: bytes, partitions: int) -> tuple[Told, int]:
    """What the definition makes of a message, and how much of it is passed over."""
    message = Message(value, key, NOW_MS * 10**6, 0, feed.headers or {})
    reading, found, passed_over = Reading.of(feed.source), Told(), 0
    try:
        elements = list(split(message, reading))
    except Rejected as rejected:
        return {0: rejected.reason}, 0
    except PassedOver:
        return {}, 1
    for element in elements:
        try:
            tick = judge(element, message, reading, partitions)
        except Rejected as rejected:
            found[element.index] = rejected.reason
        except PassedOver:
            passed_over += 1
        else:
            fields = repr([None if math.isnan(x) else x for x in tick.fields])
            seq = None if tick.seq == NO_SEQ else tick.seq
            found[element.index] = (
                tick.key, tick.tick_time, seq, tick.seq_text, tick.op, fields
            )  # fmt: skip
    return found, passed_over


@pytest.mark.parametrize("feed", FEEDS, ids=lambda feed: str(feed.spec.where[:1])[:40])
def test_the_compiled_way_the_definition_and_the_oracle_agree(feed: Feed) -> None:
    @examples(3)
    @given(variants(feed), st.sampled_from([1, 1, 3]))
    def agree(message: tuple[bytes | None, bytes], partitions: int) -> None:
        key, value = message
        ticks = Decoder(feed.source, partitions).decode(run_of_feed(feed, [message]))
        found = told(ticks)
        assert (found, ticks.passed_over) == defined(feed, key, value, partitions)
        spec = feed.with_partitions(partitions)
        record = Record("t", 0, 0, NOW_MS, key, value, feed.headers or {})
        assert found == {index: _told_of(tick) for index, tick in read(record, spec)}
        for rejected in ticks.rejected:
            assert rejected.value == texts(record, spec)[rejected.index]

    agree()


@examples(1)
@given(st.data())
def test_a_message_does_not_depend_on_the_others_of_its_run(data: st.DataObject) -> None:
    feed = data.draw(st.sampled_from(FEEDS))
    messages: list[tuple[bytes | None, bytes | None]] = list(
        data.draw(st.lists(variants(feed), max_size=6))
    )
    decoder = Decoder(feed.source, 3)
    together = decoder.decode(run_of_feed(feed, messages))
    alone = [decoder.decode(run_of_feed(feed, [message])) for message in messages]
    assert together.passed_over == sum(ticks.passed_over for ticks in alone)
    assert [told(each) for each in _by_message(together, len(messages))] == [
        told(each) for each in alone
    ]


def _by_message(ticks: Ticks, messages: int) -> list[Ticks]:
    parts = []
    for record in range(messages):
        which = np.flatnonzero(ticks.record == record)
        columns = ("keys", "raw", "record", "offset", "index", "tick_time", "seq", "op", "fields")
        taken = {name: getattr(ticks, name)[which] for name in (*columns, "known_at", "seq_text")}
        rejected = [each for each in ticks.rejected if each.offset == record]
        parts.append(replace(ticks, **taken, rejected=rejected))
    return parts


@pytest.mark.parametrize("feed", [BINANCE, COINBASE, KRAKEN, POLYGON, DATABENTO, AROUND])
def test_what_feeds_send_takes_the_compiled_way(feed: Feed) -> None:
    value = json.dumps(feed.message).encode()
    run = run_of([(feed.key, value)])
    scanned = scan(run, Layout.of(feed.source), run.timestamps * 10**6)
    assert len(scanned.left) == 0
    assert len(scanned.ticks.record) >= 1


def taken(source: Source, value: bytes, key: bytes | None = b"A") -> Ticks:
    ticks = Decoder(source).decode(run_of([(key, value)]))
    assert not ticks.rejected, ticks.rejected
    return ticks


def detail(source: Source, value: bytes | None, key: bytes | None = b"A") -> str:
    """Reason and detail of the rejection of a message."""
    (rejected,) = Decoder(source).decode(run_of([(key, value)])).rejected
    return f"{rejected.reason}: {rejected.detail}"


PLAIN = source_of("")
SCALED = source_of("""
[source.map]
price = { path = "px", scale = 1e-9 }
""")


@pytest.mark.parametrize(
    ("text", "price"),
    [
        ('"42000.10"', 42000.10),
        ('"0.00100000"', 0.001),
        ('"-37.63"', -37.63),
        ('"1e5"', 100000.0),
        ('"9007199254740993"', 9007199254740992.0),
        ('"-0"', 0.0),
        ('"-0.0"', -0.0),
    ],
)
def test_a_number_may_be_text_and_means_the_same_double(text: str, price: float) -> None:
    for written in (text, text.strip('"')):
        value = f'{{"symbol":"A","price":{written},"ts":{NOW_MS}}}'.encode()
        assert repr(taken(PLAIN, value).fields[0, 0].item()) == repr(price)


@pytest.mark.parametrize(
    "text", ["", " 1", "1 ", "+1", ".5", "1.", "01", "0x1", "NaN", "1_0", "1,0"]
)
def test_any_other_text_is_no_number(text: str) -> None:
    value = json.dumps({"symbol": "A", "price": text, "ts": NOW_MS}).encode()
    assert detail(PLAIN, value).startswith("unknown-field-type: price is ")


@given(st.integers(-(2**63) + 1, 2**63 - 2))
def test_a_scaled_integer_is_the_double_of_its_decimal(px: int) -> None:
    """Rounded once: of 64 bits, that of the integer and that of its quotient often differ."""
    decimal = float(f"{px}e-9") if px else 0.0
    for written in (f"{px}", f'"{px}"'):
        value = f'{{"symbol":"A","px":{written},"ts":{NOW_MS}}}'.encode()
        assert taken(SCALED, value).fields[0, 0] == decimal


def test_a_scale_is_of_integers_only() -> None:
    for px in ("3720.25", '"3720.25"', "1e3"):
        value = f'{{"symbol":"A","px":{px},"ts":{NOW_MS}}}'.encode()
        assert "not an integer, which its scale needs" in detail(SCALED, value)


@pytest.mark.parametrize("source", [PLAIN, SCALED])
@pytest.mark.parametrize("written", [f"{2**63 - 1}", f'"{2**63 - 1}"'])
def test_what_stands_for_no_price_is_refused_by_name(source: Source, written: str) -> None:
    value = f'{{"symbol":"A","price":{written},"px":{written},"ts":{NOW_MS}}}'.encode()
    assert detail(source, value) == (
        "not-finite: price is 9223372036854775807, which Databento writes for no value"
    )


@pytest.mark.parametrize(
    ("ts", "unit", "why"),
    [
        (1_700_000_000, "ms", 'it would be 2023-11-14T22:13:20Z in s: declare ts_unit = "s"'),
        (20_200_102, "ms", "as a date it would be 2020-01-02"),
        (20_200_102, "s", "as a date it would be 2020-01-02"),
        (1_700_000_000_000_000, "ms", 'in us: declare ts_unit = "us"'),
        (1_700_000_000_000, "ns", 'in ms: declare ts_unit = "ms"'),
        (1_700_000_000_000, "us", 'in ms: declare ts_unit = "ms"'),
        (0, "ms", "is 1970-01-01T00:00:00Z in ms: not from 1971 to 2200"),
        (2**64 - 1, "ns", "is what Databento writes where there is no time"),
        (-(2**63), "ns", "is what numpy and pandas write for no time (NaT)"),
    ],
)
def test_a_time_of_another_unit_is_told(ts: int, unit: str, why: str) -> None:
    value = json.dumps({"symbol": "A", "price": 1, "ts": ts}).encode()
    told_of = detail(source_of(f'ts_unit = "{unit}"'), value)
    assert told_of.startswith("out-of-range: ts ")
    assert why in told_of


@pytest.mark.parametrize("ts", [1_230_940_799_000, "2009-01-02T23:59:59Z"])
@pytest.mark.parametrize(
    ("earliest", "first"),
    [
        ("2010-01-01", "2010"),
        ("2009-01-03", "2009-01-03"),
        ("2009-01-03T18:15:05Z", "2009-01-03T18:15:05"),
        ("2009-01-03T00:00:00.5Z", "2009-01-03T00:00:00.500000"),
    ],
)
def test_the_first_good_time_is_told_as_exactly_as_it_is(
    ts: int | str, earliest: str, first: str
) -> None:
    """A time of the same year that is before it must not be said to be not from that year."""
    value = json.dumps({"symbol": "A", "price": 1, "ts": ts}).encode()
    assert f"not from {first} to 2200" in detail(source_of(f"earliest = {earliest}"), value)


def test_the_first_good_time_is_the_sources() -> None:
    genesis = source_of("earliest = 2009-01-03T18:15:05Z")
    for ms, is_good in ((1_231_006_505_000, True), (1_231_006_504_999, False)):
        for ts in (ms, f"2009-01-03T18:15:0{5 if is_good else 4}.{ms % 1000:03d}Z"):
            value = json.dumps({"symbol": "A", "price": 1, "ts": ts}).encode()
            assert len(Decoder(genesis).decode(run_of([(b"A", value)]))) == is_good


def test_a_name_counts_in_its_own_object_only() -> None:
    """Also where the message before had it next."""
    source = source_of('map = { symbol = "d.s", price = "d.p", ts = "@timestamp" }')
    messages = [b'{"d":{"s":"A","p":1}}', b'{"d":{"s":"A"},"p":2}', b'{"p":3,"d":{"s":"A","p":4}}']
    ticks = Decoder(source).decode(run_of([(b"A", value) for value in messages]))
    assert ticks.fields[:, 0].tolist() == [1.0, 4.0]
    assert [(r.offset, r.reason) for r in ticks.rejected] == [(1, "malformed")]


def test_a_rejected_tick_leaves_nothing_behind() -> None:
    bad, good = (
        {"symbol": "A", "ts": NOW_MS, "seq": "x"},
        {"symbol": "A", "price": 1, "ts": NOW_MS},
    )
    values = [json.dumps(tick).encode() for tick in (bad, good)]
    ticks = Decoder(PLAIN).decode(run_of([(b"A", value) for value in values]))
    assert (ticks.seq.tolist(), ticks.seq_text.tolist()) == ([NO_SEQ], [[0, 0]])


def test_a_seq_may_be_text() -> None:
    """Its number was worked out by `printf trade-1 | sha256sum`."""
    value = json.dumps({"symbol": "A", "price": 1, "ts": NOW_MS, "seq": "trade-1"}).encode()
    for spelled in (value, value.replace(b"trade-1", b"\\u0074rade-1")):
        ticks = taken(PLAIN, spelled)
        start, end = ticks.seq_text[0].tolist()
        assert ticks.data[start:end].tobytes() == b"trade-1"
        assert ticks.seq.tolist() == [-3_192_589_335_770_456_807]
    assert detail(PLAIN, value.replace(b"trade-1", b"")).startswith("malformed: seq '' must have")


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (None, "malformed: no value: a tombstone"),
        (b"\0\0\0\1\2{}", "names the schema id 258"),
        (b"\0\0", "malformed: not"),
    ],
)
def test_what_is_no_json_is_named(value: bytes | None, why: str) -> None:
    assert why in detail(PLAIN, value)


def test_other_kinds_of_message_are_passed_over() -> None:
    other = b'{"stream":"a@depth","data":{"e":"depthUpdate","s":"A","p":[["1","2"]],"T":{}}}'
    ticks = taken(BINANCE.source, other)
    assert (len(ticks), ticks.passed_over) == (0, 1)
    assert detail(BINANCE.source, other[:-1]).startswith("malformed: not JSON")
    heartbeat = b'{"channel":"heartbeat"}'
    assert taken(KRAKEN.source, heartbeat).passed_over == 1
    assert taken(KRAKEN.source, b'{"channel":"trade","data":[]}').passed_over == 1
    assert "data is missing; messages of other kinds" in detail(
        KRAKEN.source, b'{"channel":"trade"}'
    )


def test_a_condition_is_of_a_type() -> None:
    for wanted, other in (("true", "1"), ("1", "true"), ("1", "1.0"), ('"1"', "1")):
        source = source_of(f"where = {{ live = {wanted} }}")
        for unread in ("x", "é"):  # the compiled way takes the first only
            tail = f'"symbol":"A","price":1,"ts":{NOW_MS},"x":"{unread}"}}'
            both = [f'{{"live":{live},{tail}'.encode() for live in (wanted, other)]
            ticks = Decoder(source).decode(run_of([(b"A", value) for value in both]))
            assert (ticks.record.tolist(), ticks.passed_over) == ([0], 1)


def test_what_is_around_the_ticks_is_of_their_own_message() -> None:
    whole = json.dumps(AROUND.message).encode()
    for gone in (b'"at"', b'"instrument"'):
        values = [whole, whole.replace(gone, b'"x"')]
        ticks = Decoder(AROUND.source).decode(run_of([(b"A", value) for value in values]))
        assert ticks.record.tolist() == [0, 0]
        assert {(r.offset, r.reason) for r in ticks.rejected} == {(1, "malformed")}


def test_a_message_without_a_key_has_no_partition() -> None:
    value = json.dumps(POLYGON.message[:1]).encode()
    for key in (None, b""):
        assert detail(POLYGON.source, value, key).startswith("key-mismatch: ")


@pytest.mark.parametrize("key", [None, b"", b"k"])
def test_without_a_key_only_a_topic_of_one_partition_keeps_the_order(key: bytes | None) -> None:
    """Producers without keys use all partitions, and the stores would not agree on a home."""
    anyone = source_of('message_key = "any"\npartitioner = "any"')
    value = json.dumps({"symbol": "A", "price": 1, "ts": NOW_MS}).encode()
    for partitions in (None, 1):
        assert len(Decoder(anyone, partitions).decode(run_of([(key, value)]))) == 1
    several = Decoder(anyone, 2).decode(run_of([(key, value)]))
    assert len(several) == bool(key)
    for rejected in several.rejected:
        assert rejected.reason == "key-mismatch"
        assert "the topic has 2 partitions" in rejected.detail
        assert "the same key, or use a topic of one partition" in rejected.detail
