"""Requests that were asked before mean what they meant, and are bounded."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Awaitable, Sequence

import pytest

from registry.features_file import read
from serving.api.asked import AskedBefore
from serving.api.memo import TimeTexts
from serving.errors import InvalidRequest, UnknownFeature, WrongEntity
from serving.features.lookup import Names
from serving.stores.row_store import RowId, TieredRows, Unavailable
from tests.support.served import catalog_of

NAMES = Names(catalog_of(read()))


class Named:
    """The names of rows, of which none is read."""

    def name(self, row: RowId) -> bytes:
        return "/".join((row.source, *row.entity)).encode()

    def named_rows(
        self, wanted: Sequence[tuple[str, Sequence[bytes]]]
    ) -> Awaitable[list[TieredRows] | Unavailable]:
        raise NotImplementedError


def before(most_bytes: int = 10**7) -> AskedBefore:
    return AskedBefore(Named(), TimeTexts(), most_bytes)


def online(features: list[str], symbol: str) -> bytes:
    asked = {"features": features, "entity": {"symbol": symbol}}
    return json.dumps(asked).encode()


def batch(features: list[str], symbols: Sequence[str]) -> bytes:
    entities = [{"symbol": symbol} for symbol in symbols]
    return json.dumps({"features": features, "entities": entities}).encode()


def test_what_was_asked_is_found_by_its_text() -> None:
    asked = before()
    first = asked.one(NAMES, online(["current_price", "volume_sma_10"], "A"))
    assert first.plain_entities() == [{"symbol": "A"}]
    assert first.entities[0].names == (b"price/A", b"volume/A")
    assert asked.one(NAMES, online(["current_price", "volume_sma_10"], "A")) is first
    other = asked.one(NAMES, online(["current_price", "volume_sma_10"], "B"))
    assert other.questions is first.questions
    many = asked.batch(NAMES, batch(["current_price"], ["A", "B", "A"]))
    for symbols in (["B", "A"], ["A"], ["C", "A"], ["C"] * 500):
        again = asked.batch(NAMES, batch(["current_price"], symbols))
        assert again.questions is many.questions
        assert again.plain_entities() == [{"symbol": symbol} for symbol in symbols]
    reordered = asked.batch(NAMES, batch(["volume_sma_10", "current_price"], ["A"]))
    assert reordered.questions is not None
    assert reordered.questions.requested == ["volume_sma_10", "current_price"]


def test_another_catalog_forgets() -> None:
    asked = before()
    first = asked.one(NAMES, online(["current_price"], "A"))
    names = Names(catalog_of(read()))
    again = asked.one(names, online(["current_price"], "A"))
    assert again is not first
    assert again.names is names


KNOWN = '{"symbol": "A"}'


@pytest.mark.parametrize(
    ("features", "entities", "end"),
    [
        ('["current_price"]', "[]", "}"),
        ('["current_price"]', f"[{', '.join([KNOWN] * 501)}]", "}"),
        ('["current_price"]', f"[{KNOWN}]", ', "more": 1}'),
        ('["current_price"]', f"[{KNOWN}]", "} more"),
        ('["current_price"]', f'{{"a": {KNOWN}}}', "}"),
        ('["current_price"]', f'[{KNOWN}, {{"symbol": ""}}]', "}"),
        ("[]", f"[{KNOWN}]", "}"),
        ('5, "features": ["current_price"]', f"[{KNOWN}]", "}"),
        ("5", f"[{KNOWN}]", r', "\u0066eatures": ["current_price"]}'),
    ],
)
def test_what_is_known_does_not_let_other_things_pass(
    features: str, entities: str, end: str
) -> None:
    asked = before()
    asked.batch(NAMES, b'{"features": ["current_price"], "entities": [{"symbol": "A"}]}')
    with pytest.raises(InvalidRequest):
        asked.batch(NAMES, f'{{"features": {features}, "entities": {entities}{end}'.encode())


@pytest.mark.parametrize("separators", [(", ", ": "), (",", ":"), (" , ", " : ")])
@pytest.mark.parametrize("is_reversed", [False, True])
@pytest.mark.parametrize("symbols", [["A"], ["A", "B", "A"], ["}, {", "[{", "}]}", "A"]])
def test_a_batch_is_the_same_however_it_is_written(
    separators: tuple[str, str], is_reversed: bool, symbols: Sequence[str]
) -> None:
    asked = before()
    entities = [{"symbol": symbol} for symbol in symbols]
    fields = {"features": ["current_price"], "entities": entities}.items()
    body = json.dumps(dict(reversed(fields) if is_reversed else fields), separators=separators)
    first = asked.batch(NAMES, body.encode())
    for found in (first, asked.batch(NAMES, body.encode()), asked.batch(NAMES, body.encode())):
        assert found.plain_entities() == entities
        assert found.entities[0].names == (f"price/{symbols[0]}".encode(),)


@pytest.mark.parametrize(
    "body",
    [
        b'{"features": ["current_price"], "entities": ',
        b'{"features": ["current_price"], "entities": [{}]}',
        b'{"features": ["current_price"], "entities": [{"symbol": "A"}] }]}',
        b'{"features": ["current_price"], "entities": [{"symbol": "A"}]}]}',
        b'{"features": ["current_price"], "entities": [{"symbol": "A"}, {}]}',
        b'{"features": ["current_price"], "entities": [{{"symbol": "A"}}]}',
        b'{"features": ["current_price"], "entities": [["symbol": "A"]]}',
        b'{"entities": [{"symbol": "A"}]}',
    ],
)
def test_a_known_beginning_does_not_let_other_things_pass(body: bytes) -> None:
    asked = before()
    asked.batch(NAMES, b'{"entities": [{"symbol": "A"}], "features": ["current_price"]}')
    asked.batch(NAMES, batch(["current_price"], ["A", "B"]))
    with pytest.raises(InvalidRequest):
        asked.batch(NAMES, body)


def test_kinds_and_names_are_checked_however_often() -> None:
    asked = before()
    for _ in range(2):
        with pytest.raises(UnknownFeature):
            asked.one(NAMES, online(["price_sma_7"], "A"))
        with pytest.raises(WrongEntity):
            asked.one(NAMES, online(["position_size"], "A"))


def test_what_is_left_to_the_reader() -> None:
    """Sums, and a store that is not read by names."""
    asked = before()
    exposure = {"features": ["portfolio_exposure"], "entity": {"portfolio": "P"}}
    sums = asked.one(NAMES, json.dumps(exposure).encode())
    assert (sums.questions, sums.plain_entities()) == (None, [{"portfolio": "P"}])
    unnamed = AskedBefore(None, TimeTexts()).one(NAMES, online(["current_price"], "A"))
    assert unnamed.questions is None


def test_what_is_kept_is_bounded() -> None:
    asked, most = before(most_bytes=600_000), 0
    names = [name for name in NAMES.catalog.active if name.startswith(("price", "volume"))]
    tracemalloc.start()
    for i in range(1_500):
        asked.one(NAMES, online([names[i % 3]], f"S{i}"))
        asked.one(NAMES, online([names[0]] * 50, f"S{i}"))
        asked.batch(NAMES, batch([names[i % 4]], [f"S{i}", f"T{i}"]))
        asked.batch(NAMES, batch([names[i % 4]] * (1 + i % 90), ["A"]))
        most = max(most, tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert most < 1_200_000


def test_whole_batches_are_bounded_with_what_is_worked_out_of_them() -> None:
    """However small each is: an eighth of what is kept is theirs."""
    asked, most = before(most_bytes=8_000_000), 0
    symbols = [f"S{i}" for i in range(100)]
    asked.batch(NAMES, batch(["current_price"], symbols))
    tracemalloc.start()
    for one in symbols:
        for other in symbols:
            body = batch(["current_price"], [one, other])
            asked.batch(NAMES, body)
            kept = asked.kept_batch(NAMES, body)
            assert kept is not None
            assert kept.wanted
            assert kept.texts
            most = max(most, tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert most < 1_500_000


def test_what_is_known_stays_known_beside_what_is_new() -> None:
    """Else a new symbol in each batch would push all others out."""
    asked = before(most_bytes=600_000)
    symbols = [f"S{i}" for i in range(100)]
    first = asked.batch(NAMES, batch(["current_price"], symbols))
    for i in range(300):
        asked.batch(NAMES, batch(["current_price"], [*symbols, f"new{i}"]))
    assert asked.batch(NAMES, batch(["current_price"], symbols)).entities[0] is first.entities[0]
