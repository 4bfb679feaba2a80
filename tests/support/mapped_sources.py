"""Sources that read the messages of others, as the others send them, and what is nearly such a
message."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import strategies as st

from registry.definitions import Source
from registry.features_file import read
from tests.checker.sources import spec_of
from tests.oracle.messages import SourceSpec
from tests.support.logs import NOW_MS

HEAD = """
[[source]]
name = "trades"
topic = "trades"
key = ["symbol"]
fields = [{ name = "price" }, { name = "size", optional = true }]
"""
TAIL = """
[[feature]]
name = "last_price"
version = "1.0.0"
source = "trades"
expression = "last(price)"
"""


def source_of(declared: str, head: str = HEAD) -> Source:
    """The source of a features file that declares it so."""
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(head + declared + TAIL)
        file.flush()
        return read(Path(file.name)).sources[0]


@dataclass(frozen=True)
class Feed:
    """A source, how its checker reads it, and a message with its key and headers."""

    source: Source
    message: Any
    key: bytes | None = b"A"
    headers: Mapping[str, bytes] | None = None

    @property
    def spec(self) -> SourceSpec:
        return spec_of(msgspec.to_builtins(self.source), "trades")

    def with_partitions(self, partitions: int) -> SourceSpec:
        return replace(self.spec, partitions=partitions)


BINANCE = Feed(
    source_of("""
where = { "data.e" = ["trade", "aggTrade"] }
[source.map]
symbol = "data.s"
price = "data.p"
size = "data.q"
ts = "data.T"
seq = "data.t"
"""),
    {
        "stream": "a@trade",
        "data": {
            "e": "trade",
            "E": NOW_MS,
            "s": "A",
            "t": 12345,
            "p": "0.00100000",
            "q": "100.0",
            "T": NOW_MS,
            "m": True,
            "M": True,
        },
    },
)
COINBASE = Feed(
    source_of("""
where = { type = "match" }
[source.map]
symbol = "product_id"
ts = "time"
seq = "trade_id"
"""),
    {
        "type": "match",
        "trade_id": 10,
        "sequence": 50,
        "product_id": "A",
        "side": "sell",
        "time": "2023-11-14T22:13:20.123456Z",
        "size": "5.23512",
        "price": "400.23",
    },
)
KRAKEN = Feed(
    source_of("""
items = "data"
where = { "^channel" = "trade" }
message_key = "any"
partitioner = "any"
[source.map]
size = "qty"
ts = "timestamp"
seq = "trade_id"
"""),
    {
        "channel": "trade",
        "type": "update",
        "data": [
            {
                "symbol": "A",
                "side": "sell",
                "price": 0.5117,
                "qty": 40.0,
                "trade_id": trade,
                "timestamp": "2023-11-14T22:13:19.708706Z",
            }
            for trade in (4665906, 4665907)
        ],
    },
    key=None,
)
POLYGON = Feed(
    source_of("""
where = { ev = "T" }
message_key = "any"
partitioner = "crc32"
[source.map]
symbol = "sym"
price = "p"
size = "s"
ts = "t"
seq = "i"
"""),
    [
        {
            "ev": "T",
            "sym": "A",
            "x": 4,
            "i": "12345",
            "z": 3,
            "p": 114.125,
            "s": 100,
            "c": [0, 12],
            "t": NOW_MS,
            "q": 3681328,
        },
        {"ev": "status", "status": "connected", "message": "Connected Successfully"},
    ],
)
DATABENTO = Feed(
    source_of("""
ts_unit = "ns"
where = { action = "T" }
[source.map]
symbol = "@key"
price = { path = "price", scale = 1e-9 }
ts = { path = "hd.ts_event", digits = true }
seq = "sequence"
"""),
    {
        "ts_recv": f"{NOW_MS}704060",
        "hd": {"ts_event": f"{NOW_MS}429831", "rtype": 0, "publisher_id": 1},
        "action": "T",
        "side": "A",
        "price": "3720250000000",
        "size": 5,
        "sequence": 1170352,
    },
)
AROUND = Feed(
    source_of(
        """
items = "body.ticks"
partitioner = "fnv1a"
earliest = 2009-01-03T18:15:05Z
positive = true
[source.map]
desk = { value = "D1" }
symbol = "^body.instrument"
price = '"last.px"'
size = "^body.lot"
multiplier = { value = 100 }
ts = "^at"
seq = "^id"
""",
        """
[[source]]
name = "trades"
topic = "trades"
key = ["symbol", "desk"]
fields = [
    { name = "price" },
    { name = "size", default = 7.0 },
    { name = "multiplier" },
    { name = "open", optional = true },
]
""",
    ),
    {
        "at": NOW_MS,
        "body": {
            "lot": 10,
            "ticks": [{"last.px": 1.5, "open": None}, {"op": "reset"}],
            "instrument": "A",
        },
        "id": "x-1",
    },
)
HEADERS = Feed(
    source_of("""
where = { "@header.kind" = "trade", live = [true, 1] }
[source.map]
symbol = "@key"
price = "@header.px"
ts = "@timestamp"
op = { value = "trade" }
"""),
    {"live": True, "size": 3, "op": "c"},
    headers={"kind": b"trade", "px": b"1.25"},
)
FEEDS = (BINANCE, COINBASE, KRAKEN, POLYGON, DATABENTO, AROUND, HEADERS)

odd_values = st.one_of(
    st.sampled_from(
        [
            *("null", "true", "false", "1", "1.0", "-0", '"-0"', "-0.0", "0", '"1"', '""', '"A"'),
            *('"trade"', '"aggTrade"', '"T"', '"reset"', '"match"', '"\\u0041"', '"é"', '"1e3"'),
            *("{}", "[]", "[1]", '{"p":1}', "[[{}],{}]", '"NaN"', "NaN", "1e999", '"1e999"'),
            *('" 1"', '"1 "', '"01"', '"1."', '"+1"', '".5"', '"0x1"', '"١"', '"Infinity"'),
            *(str(2**63 - 1), f'"{2**63 - 1}"', str(2**64 - 1), f'"{2**64 - 1}"', str(2**63)),
            *(f'"{-(2**63)}"', "20200102", str(NOW_MS // 1000), f'"{NOW_MS}"', str(NOW_MS)),
            *('"2023-11-14T22:13:20Z"', '"1969-12-31T23:59:59Z"', '"2023-02-29T00:00:00Z"'),
            *('"2008-01-01 00:00:00.5+05:30"', '"2023-11-14t22:13:20.1234567890Z"', '"x" "y"'),
            *("1234567890123456789", '"12345678901234567890"', '"9007199254740993"', "[1", "tru"),
        ]
    ),
    st.integers(-(10**20), 10**20).map(str),
    st.integers(-(10**20), 10**20).map('"{}"'.format),
    st.floats(allow_nan=False, allow_infinity=False).map('"{!r}"'.format),
    st.from_regex(
        r'"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?"', fullmatch=True
    ),
)
spaces = st.sampled_from([""] * 8 + [" ", "\n\t"])


class Members(list[tuple[str, Any]]):
    """An object as its members, of which two may have one name."""


def _opened(value: Any) -> Any:
    if isinstance(value, dict):
        return Members((name, _opened(inner)) for name, inner in value.items())
    return [_opened(inner) for inner in value] if isinstance(value, list) else json.dumps(value)


def _objects(value: Any) -> list[Any]:
    """The objects and arrays in a value, itself among them."""
    inner = [item[1] if isinstance(value, Members) else item for item in value]
    return [value, *(o for each in inner if isinstance(each, list) for o in _objects(each))]


@st.composite
def variants(draw: st.DrawFn, feed: Feed) -> tuple[bytes | None, bytes]:
    """(key, value): the feed's message, and more often with something wrong in it."""
    message = _opened(feed.message)
    for _ in range(draw(st.integers(0, 3))):
        chosen = draw(st.sampled_from(_objects(message)))
        if not chosen:
            continue
        at = draw(st.integers(0, len(chosen) - 1))
        changed: Any = draw(odd_values)
        if isinstance(chosen, Members):
            changed = (chosen[at][0], changed)
        match draw(st.integers(0, 4)):
            case 0:
                del chosen[at]
            case 1:
                chosen.insert(draw(st.integers(0, len(chosen))), chosen[at])
            case 2:
                chosen.insert(draw(st.integers(0, len(chosen))), changed)
            case 3:
                chosen.append(chosen.pop(at))
            case _:
                chosen[at] = changed

    def written(value: Any) -> str:
        space = draw(spaces)
        if isinstance(value, Members):
            inner = [f'{space}"{name}"{space}:{written(each)}' for name, each in value]
            return space + "{" + f"{space},".join(inner) + space + "}" + space
        if isinstance(value, list):
            return space + "[" + ",".join(map(written, value)) + space + "]" + space
        return f"{space}{value}{space}"

    key = draw(st.sampled_from([feed.key] * 8 + [b"A", b"B", b"", None, b"\xff", b"k" * 256]))
    return key, written(message).encode()
