"""Logs of raw Kafka records, made by hypothesis, for the product and the oracle alike."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import strategies as st

from pipelines.kafka.run import Run
from tests.oracle.features import Feature
from tests.oracle.messages import Record, SourceSpec

NOW_MS = 1_700_000_000_000
TOPIC_ID = bytes(range(16))

PRICE = SourceSpec(
    "price", "ticks.price", ("symbol",), (("price", True, None), ("size", False, None))
)
PRICE_FEATURES = (
    Feature("current_price", "last", 0, 1),
    Feature("price_sma_5", "mean", 0, 5),
    Feature("price_sma_20", "mean", 0, 20),
    Feature("price_volatility", "volatility", 0, 20),
)

POSITION = SourceSpec(
    "position",
    "ticks.position",
    ("portfolio", "symbol"),
    (("quantity", True, None), ("multiplier", False, 1.0)),
)
POSITION_FEATURES = (
    Feature("position_size", "last", 0, 1),
    Feature("position_multiplier", "last", 1, 1),
)

prices = st.one_of(
    st.floats(0.01, 1000.0),
    st.sampled_from([1e-9, 1e12, 100.0, 100.0, 100.0, -37.63, 0.0, 5e-324, 1.7e308]),
    st.integers(-(10**20), 10**20),
    st.floats(allow_nan=False, allow_infinity=False),
)


@st.composite
def good_ticks(draw: st.DrawFn, symbols: Sequence[str] = ("A", "B")) -> dict[str, Any]:
    """A tick about now: times repeat, run backwards within and beyond skew; seqs collide."""
    tick: dict[str, Any] = {"symbol": draw(st.sampled_from(symbols)), "price": draw(prices)}
    tick["ts"] = NOW_MS + draw(st.sampled_from([0, 0, 1, 2, 500, 999, 1000, -1, -999, -1500]))
    if draw(st.booleans()):
        tick["seq"] = draw(st.integers(0, 3))
    if draw(st.booleans()):
        tick["size"] = draw(st.one_of(st.integers(0, 100), st.none()))
    if draw(st.integers(0, 15)) == 0:
        tick["op"] = draw(st.sampled_from(["reset", "reset", "reset", "close"]))
    return tick


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["A", "1", "2023-11-14T22:13:20Z", "2023-11-14T22:13:20.123456789+01:00"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


@st.composite
def odd_ticks(draw: st.DrawFn) -> dict[str, Any]:
    """A tick with a field that is wrong, missing or unknown, more often than not."""
    tick = draw(good_ticks())
    field = draw(st.sampled_from(["symbol", "price", "size", "ts", "seq", "op", "other"]))
    if draw(st.booleans()):
        tick[field] = draw(json_values)
    else:
        tick.pop(field, None)
    return tick


@st.composite
def messages(draw: st.DrawFn) -> tuple[bytes | None, bytes | None]:
    """(key, value) of a message: ticks, arrays of ticks, and what hostile producers send."""
    kind = draw(st.integers(0, 11))
    if kind < 6:
        tick = draw(good_ticks())
        return str(tick["symbol"]).encode(), json.dumps(tick).encode()
    if kind < 8:
        ticks = draw(st.lists(good_ticks(("A",)) | odd_ticks(), max_size=4))
        return b"A", json.dumps(ticks, ensure_ascii=draw(st.booleans())).encode(
            "utf-8", "surrogatepass"
        )
    if kind < 10:
        tick = draw(odd_ticks())
        key = draw(st.sampled_from([b"A", b"B", None, b"\xff"]))
        return key, json.dumps(tick).encode()
    whole = json.dumps(draw(good_ticks())).encode()
    cut = draw(st.integers(0, len(whole)))
    return b"A", draw(
        st.sampled_from(
            [None, b"", whole[:cut], whole + b" ", b" \n" + whole, whole + whole, b"[" + whole]
        )
        | st.binary(max_size=20)
    )


@st.composite
def position_ticks(draw: st.DrawFn) -> dict[str, Any]:
    """A good tick of a position in the portfolio P: a third of them resets and closes."""
    tick: dict[str, Any] = {"portfolio": "P", "symbol": draw(st.sampled_from("ABC"))}
    tick["ts"] = NOW_MS + draw(st.sampled_from([0, 0, 1, 2, -1, -999, -1500]))
    operation = draw(st.sampled_from(["trade"] * 3 + ["", "close", "reset"]))
    if operation:
        tick["op"] = operation
    if operation in ("trade", "") or draw(st.booleans()):
        tick["quantity"] = draw(st.sampled_from([0, -0.0, 0.0, 1, 7, 300.5, -300, 1e-12]))
    if draw(st.booleans()):
        tick["multiplier"] = draw(st.sampled_from([1, 0, 50, 0.1]))
    if draw(st.booleans()):
        tick["seq"] = draw(st.integers(0, 9))
    return tick


@st.composite
def position_logs(draw: st.DrawFn, most: int = 40) -> list[Record]:
    """Records of one partition of positions, some of them arrays."""
    messages = draw(st.lists(st.lists(position_ticks(), min_size=1, max_size=3), max_size=most))
    return [
        Record(
            *("ticks.position", 0, offset, NOW_MS, b"P"),
            json.dumps(ticks if len(ticks) > 1 else ticks[0]).encode(),
        )
        for offset, ticks in enumerate(messages)
    ]


@st.composite
def logs(draw: st.DrawFn, partitions: int = 1, most: int = 60, least: int = 0) -> list[Record]:
    """Records of `partitions` partitions, in the order of their timestamps, with offset gaps."""
    records = []
    following = [draw(st.integers(0, 5))] * partitions
    for key, value in draw(st.lists(messages(), min_size=least, max_size=most)):
        partition = draw(st.integers(0, partitions - 1))
        at = NOW_MS + draw(st.sampled_from([0, 0, 0, 1, -2000, 500]))
        records.append(Record("ticks.price", partition, following[partition], at, key, value))
        following[partition] += draw(st.sampled_from([1, 1, 1, 2]))
    return records


def run_of_columns(
    partition: int,
    bounds: tuple[int, int],
    offsets: Sequence[int],
    timestamps: Sequence[int],
    keys: Sequence[bytes | None],
    values: Sequence[bytes | None],
    headers: Sequence[Mapping[str, bytes]] | None = None,
) -> Run:
    """A run from `bounds[0]` up to `bounds[1]` of these records."""
    data = bytearray()

    def written(texts: Sequence[bytes | None]) -> np.ndarray[Any, np.dtype[np.int64]]:
        spans = np.full((len(texts), 2), -1, np.int64)
        for place, text in enumerate(texts):
            if text is not None:
                spans[place] = len(data), len(data) + len(text)
                data.extend(text)
        return spans

    key_spans, value_spans = written(keys), written(values)
    begins = []
    for each in headers or ():
        begins.append(len(data))
        data += b"".join(
            [_varint(len(each)), *(_text(k.encode()) + _text(v) for k, v in each.items())]
        )
    return Run(
        topic="ticks.price",
        topic_id=TOPIC_ID,
        partition=partition,
        base_offset=bounds[0],
        next_offset=bounds[1],
        data=np.frombuffer(data, np.uint8),
        offsets=np.array(offsets, np.int64),
        timestamps=np.array(timestamps, np.int64),
        keys=key_spans,
        values=value_spans,
        headers=None if headers is None else np.array(begins, np.int64),
    )


def _text(text: bytes) -> bytes:
    return _varint(len(text)) + text


def _varint(number: int) -> bytes:
    """A number of at most 63 as Kafka writes it in a record."""
    assert 0 <= number < 64
    return bytes([2 * number])


def run_of(
    messages: Sequence[tuple[bytes | None, bytes | None]],
    timestamp_ms: int = NOW_MS,
    headers: Sequence[Mapping[str, bytes]] | None = None,
) -> Run:
    """A run of partition 0 that begins at offset 0, of the keys and values of `messages`."""
    n = len(messages)
    keys, values = [key for key, _ in messages], [value for _, value in messages]
    return run_of_columns(0, (0, n), range(n), [timestamp_ms] * n, keys, values, headers)


def runs(records: Sequence[Record], cuts: Sequence[int], base: int = 0) -> Iterator[Run]:
    """The records of one partition as runs cut before the places in `cuts`, without gaps."""
    places = [0, *sorted(cut for cut in cuts if cut < len(records)), len(records)]
    for start, end in pairwise(places):
        part = records[start:end]
        following = (
            records[end].offset
            if end < len(records)
            else (records[-1].offset + 1 if records else base)
        )
        yield run_of_columns(
            records[0].partition if records else 0,
            (base, following),
            [record.offset for record in part],
            [record.timestamp_ms for record in part],
            [record.key for record in part],
            [record.value for record in part],
        )
        base = following


def same_double(one: float, other: float) -> bool:
    """The same bits, any NaN for any other."""
    return (math.isnan(one) and math.isnan(other)) or (
        one == other and math.copysign(1, one) == math.copysign(1, other)
    )
