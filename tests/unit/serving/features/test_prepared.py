"""Prepared questions are answered as the general reader answers them, which is the definition."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.definitions import Catalog, RowSchema
from registry.features_file import read
from registry.formats.origin import Origin
from registry.formats.row import Row, pack, unpack
from registry.formats.status import Status
from serving.api.arrow import arrow
from serving.api.compact import compact
from serving.api.memo import TimeTexts
from serving.api.objects import AGE, ObjectsForm
from serving.errors import UnknownFeature, WrongEntity
from serving.features.columns import answer_columns
from serving.features.lookup import Names
from serving.features.prepared import PreparedQuestion, Uncommon
from serving.features.reader import Reader
from serving.features.table import evaluated_table, prepared_table
from serving.features.times import to_rfc_3339
from serving.features.values import Moment
from serving.stores.row_store import UNAVAILABLE, Packed, RowId, Tier, TieredRows
from tests.oracle.times import rfc_3339
from tests.support.row_stores import MemoryStore
from tests.support.served import catalog_of
from tests.support.shipped import SHIPPED

DERIVED = {
    "momentum": "price_sma_5 / price_sma_20 - 1",
    "by_zero": "current_price / (price_sma_5 - price_sma_5) * 0",
    "flow": "-abs(current_volume - volume_sma_10) * current_price * 1e3",
    "inverse": "1 / (current_price / (price_sma_5 - price_sma_5))",
    "constant": "2 + current_volume * 0 - 3.5",
}
OLDER, REVERSED = 11, 12
"""Row schemas of prices that are not written now: with two features less, and in another order."""


def the_catalog() -> Catalog:
    """The shipped features, derived ones, and more row schemas of prices."""
    added = "".join(
        f'[[feature]]\nname = "{name}"\nversion = "1.0.0"\nentity = ["symbol"]\n'
        f'expression = "{expression}"\n' + ('max_age = "30s"\n' if name == "flow" else "")
        for name, expression in DERIVED.items()
    )
    added += '[[feature]]\nname = "held"\nversion = "1.0.0"\nentity = ["portfolio", "symbol"]\n'
    added += 'expression = "position_size * position_multiplier"\n'
    with TemporaryDirectory() as folder:
        file = Path(folder) / "features.toml"
        file.write_text(SHIPPED.read_text() + added)
        catalog = catalog_of(read(file))
    prices = catalog.schemas[catalog.writing["price"]].features
    others = {
        OLDER: RowSchema(OLDER, "price", prices[:2]),
        REVERSED: RowSchema(REVERSED, "price", prices[::-1]),
    }
    return msgspec.structs.replace(catalog, schemas=catalog.schemas | others)


CATALOG = the_catalog()
NAMES = Names(CATALOG)
NOW = 1_700_000_000 * 10**9
FEATURES = [
    *("current_price", "price_sma_5", "price_sma_20", "price_volatility", "volatility"),
    *("volatility@1.0.0", "current_volume", "volume_sma_10", *DERIVED),
]


class Situation(NamedTuple):
    """Features, rows, symbols, the tiers of rows, and what is lagging: sources, cold or not."""

    features: list[str]
    rows: dict[RowId, Packed]
    symbols: list[str]
    tiers: dict[RowId, Tier]
    lagging: set[tuple[str, bool]]


ages = st.sampled_from([0, 1, 59 * 10**9, 60 * 10**9, 60 * 10**9 + 1, 10**12, -5])
numbers = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(
    [0.0, -0.0, 1.5, 1e308]
)


@st.composite
def plain_rows(draw: st.DrawFn, source: str) -> Packed:
    """A row of today's row schema in which every value is there."""
    schema = CATALOG.writing[source]
    n = len(CATALOG.schemas[schema].features)
    values = tuple(draw(st.floats(-1e6, 1e6)) for _ in range(n))
    age = draw(st.integers(0, 60)) * 10**9
    return pack(Row(schema, NOW - age, 0, NOW, Origin(bytes(16), 0, 0, 0), bytes(n), values))


@st.composite
def packed_rows(draw: st.DrawFn, source: str) -> Packed:
    """A row, no row, or no answer."""
    kind = draw(st.sampled_from(["row"] * 6 + ["missing", "unavailable"]))
    if kind != "row":
        return None if kind == "missing" else UNAVAILABLE
    schemas = [s.id for s in CATALOG.schemas.values() if s.source == source]
    schema = draw(st.sampled_from([CATALOG.writing[source]] * 3 + schemas))
    features = len(CATALOG.schemas[schema].features)
    if draw(st.booleans()):
        status = bytes(features)
    else:
        status = bytes(draw(st.lists(st.integers(0, 3), min_size=features, max_size=features)))
    values = tuple(math.nan if s else draw(numbers) for s in status)
    origin = Origin(bytes(16), 0, 0, 0)
    return pack(Row(schema, NOW - draw(ages), 0, NOW, origin, status, values))


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    """Features, rows, symbols (some twice), the tiers of rows, and what is lagging."""
    features = draw(st.lists(st.sampled_from(FEATURES), min_size=1, max_size=12))
    symbols = draw(st.lists(st.sampled_from(["A", "B", 'ü"\\', "C"]), min_size=1, max_size=6))
    kind = draw(st.sampled_from([plain_rows, packed_rows]))
    rows = {
        RowId(source, (symbol,)): draw(kind(source))
        for symbol in dict.fromkeys(symbols)
        for source in ("price", "volume")
    }
    of_rows = st.fixed_dictionaries({row: st.sampled_from(list(Tier)[1:]) for row in rows})
    tiers = draw(st.sampled_from(Tier).map(lambda tier: dict.fromkeys(rows, tier)) | of_rows)
    late = st.sets(st.tuples(st.sampled_from(["price", "volume"]), st.booleans()))
    lagging = draw(st.just(set()) | late)
    return Situation(features, rows, symbols, tiers, lagging)


def by_the_reader(
    features: Sequence[str],
    entities: Sequence[Mapping[str, str]],
    store: MemoryStore,
    moment: Moment,
) -> list[bytes]:
    answers = asyncio.run(Reader(store).answer(NAMES, features, entities, lambda: moment))
    return [msgspec.json.encode(answer) for answer in answers]


class Compared(NamedTuple):
    """A question about entities, the store of their rows, and what the reader says."""

    question: PreparedQuestion
    entities: list[dict[str, str]]
    store: MemoryStore
    moment: Moment
    expected: list[bytes]


def compared(situation: Situation) -> Compared:
    features, rows, symbols, tiers, lagging = situation
    entities = [{"symbol": symbol} for symbol in symbols]
    moment = Moment(NOW, lambda source, tier: (source, tier == Tier.COLD) in lagging)
    question = PreparedQuestion(NAMES, NAMES.versions(features), ["symbol"])
    store = MemoryStore(rows, tiers=tiers)
    expected = by_the_reader(features, entities, store, moment)
    return Compared(question, entities, store, moment, expected)


def of_sources(ids: Sequence[Sequence[RowId]], situation: Situation) -> list[TieredRows]:
    """The rows of entities, by source; of one tier as stores say that of all of them."""
    found = []
    for of in zip(*ids, strict=True):
        tiers = [situation.tiers[one] for one in of]
        tier = tiers[0] if len(set(tiers)) == 1 else tiers
        found.append(TieredRows([situation.rows[one] for one in of], tier))
    return found


@given(situations())
def test_an_answer_is_the_readers_to_the_byte(situation: Situation) -> None:
    rows = situation.rows
    question, entities, _, moment, expected = compared(situation)
    form = ObjectsForm(question, TimeTexts(AGE))
    texts = [msgspec.json.encode(entity) for entity in entities]
    ids = [question.row_ids(entity) for entity in entities]
    read = of_sources(ids, situation)
    found = answer_columns(question, read, moment)
    assert form.many(texts, found) == b'{"results":[' + b",".join(expected) + b"]}"
    for index, (text, wanted, answer) in enumerate(zip(texts, ids, expected, strict=True)):
        packed, tiers = [rows[one] for one in wanted], [of.tier_of(index) for of in read]
        try:
            alone = question.evaluate(packed, tiers, moment)
        except Uncommon:  # a row schema that lacks a feature, or has another order
            schemas = {int.from_bytes(row[1:5]) for row in packed if isinstance(row, bytes)}
            assert schemas & {OLDER, REVERSED}
        else:
            assert form.one(text, alone, NOW) == answer
            if len(set(tiers)) == 1 and not situation.lagging:
                plain = question.plain(packed, NOW)
                assert (plain is not None) == (set(alone.statuses) == {Status.OK})
                if plain is not None:
                    assert form.plain(text, plain, tiers[0], NOW) == answer


def as_answers(found: dict[str, Any], rows: Mapping[RowId, Packed]) -> list[bytes]:
    """What a compact answer says, as the reader says it.

    A feature that a row does not have has no event time for the reader, and here that of the others
    which were asked for, if the row has one of them.
    """
    answers = []
    for i, entity in enumerate(found["entities"]):
        values = {}
        for name, feature in found["features"].items():
            label, status = feature["event_time"], feature["status"]
            time, tier = found["event_time"][label][i], found["tier"][label]
            source = NAMES.feature(name).source
            row = rows[RowId(source, (entity["symbol"],))] if source else None
            if isinstance(row, bytes) and lacks(row, name):
                others = [
                    other for other in found["features"] if NAMES.feature(other).source == source
                ]
                known = (
                    None if all(lacks(row, other) for other in others) else unpack(row).event_time
                )
                assert (None if time is None else rfc_3339(time)) == known
                time = None
            nanoseconds = None if time is None else rfc_3339(time)
            values[name] = {
                "value": feature["value"][i],
                "status": status if isinstance(status, str) else status[i],
                "version": feature["version"],
                "event_time": time,
                "age_seconds": None if nanoseconds is None else (NOW - nanoseconds) / 1e9,
                "tier": tier[i] if isinstance(tier, list) else tier,
            }
        answers.append(msgspec.json.encode({"entity": entity, "features": values}))
    return answers


def lacks(row: bytes, name: str) -> bool:
    return NAMES.index(unpack(row).schema_id, NAMES.feature(name).ref) is None


def from_arrow(stream: bytes) -> dict[str, Any]:
    """A stream of Arrow, read by pyarrow, as a compact answer."""
    table = pa.ipc.open_stream(stream).read_all()
    features, times, tiers = {}, {}, {}
    for field in table.schema:
        if not field.metadata:
            continue
        column, metadata = table[field.name], {k.decode(): v for k, v in field.metadata.items()}
        lie_under = column.combine_chunks().to_numpy(zero_copy_only=False)
        assert np.isnan(lie_under[~column.is_valid().to_numpy()]).all()
        time = metadata["event_time"].decode()
        label, _, _ = time.rpartition(".event_time")
        integers = table[f"{time}_ns"].to_pylist()
        assert table[time].cast(pa.int64()).to_pylist() == integers
        times[label] = [None if t is None else to_rfc_3339(t) for t in integers]
        tiers[label] = table[f"{label}.tier"].to_pylist()
        features[field.name] = {
            "version": metadata["version"].decode(),
            "event_time": label,
            "value": column.to_pylist(),
            "status": table[f"{field.name}.status"].to_pylist(),
        }
    entities = [{"symbol": symbol} for symbol in table["symbol"].to_pylist()]
    return {"entities": entities, "event_time": times, "tier": tiers, "features": features}


@given(situations())
def test_tables_say_the_same(situation: Situation) -> None:
    features, rows = situation.features, situation.rows
    question, entities, store, moment, expected = compared(situation)
    ids = [question.row_ids(entity) for entity in entities]
    evaluated = asyncio.run(Reader(store).evaluate(NAMES, features, entities, lambda: moment))
    texts = [msgspec.json.encode(entity) for entity in entities]
    of_source = [NAMES.feature(name).source or name for name in features]
    labels = [name for i, name in enumerate(features) if of_source[i] not in of_source[:i]]
    for table in (
        prepared_table(question, answer_columns(question, of_sources(ids, situation), moment)),
        evaluated_table(evaluated, features),
    ):
        found = json.loads(compact(texts, table, TimeTexts()))
        assert found["answered_at"] == to_rfc_3339(NOW)
        assert list(found["event_time"]) == labels
        assert as_answers(found, rows) == expected
        assert as_answers(from_arrow(arrow(entities, table)), rows) == expected


@pytest.mark.parametrize(
    "row",
    [
        b"",
        b"junk",
        pack(Row(99, NOW, 0, NOW, Origin(bytes(16), 0, 0, 0), bytes(4), (1.0,) * 4)),
        pack(Row(1, NOW, 0, NOW, Origin(bytes(16), 0, 0, 0), bytes(3), (1.0,) * 3)),
        pack(Row(1, NOW, 0, NOW, Origin(bytes(16), 0, 0, 0), bytes(5), (1.0,) * 5)),
        pack(Row(1, NOW, 0, NOW, Origin(bytes(16), 0, 0, 0), b"\x09" * 4, (1.0,) * 4)),
    ],
    ids=["empty", "no row", "an unknown row schema", "smaller", "larger", "an unknown status"],
)
def test_what_is_damaged_is_left_to_the_reader(row: bytes) -> None:
    question = PreparedQuestion(NAMES, NAMES.versions(["current_price"]), ["symbol"])
    moment = Moment(NOW, lambda source, tier: False)
    good = pack(Row(1, NOW, 0, NOW, Origin(bytes(16), 0, 0, 0), bytes(4), (1.0,) * 4))
    with pytest.raises(Uncommon):
        question.evaluate([row], [Tier.WARM], moment)
    for rows in ([row], [good, row], [row, good], [row, row], [None, row]):
        with pytest.raises(Uncommon):
            answer_columns(question, [TieredRows(rows, Tier.WARM)], moment)


def test_a_feature_that_a_row_lacks_has_no_event_time() -> None:
    """Beside one that the same row has, and beside a row that has both."""
    origin = Origin(bytes(16), 0, 0, 0)
    rows: dict[RowId, Packed] = {
        RowId("price", ("A",)): pack(Row(OLDER, NOW, 0, NOW, origin, bytes(2), (1.0, 2.0))),
        RowId("price", ("B",)): pack(Row(1, NOW, 0, NOW, origin, bytes(4), (1.0,) * 4)),
    }
    features, entities = ["current_price", "price_volatility"], [{"symbol": "A"}, {"symbol": "B"}]
    moment = Moment(NOW, lambda source, tier: False)
    question = PreparedQuestion(NAMES, NAMES.versions(features), ["symbol"])
    found = answer_columns(question, [TieredRows(list(rows.values()), Tier.WARM)], moment)
    texts = [msgspec.json.encode(entity) for entity in entities]
    expected = by_the_reader(features, entities, MemoryStore(rows), moment)
    answer = ObjectsForm(question, TimeTexts(AGE)).many(texts, found)
    assert answer == b'{"results":[' + b",".join(expected) + b"]}"
    lacking = json.loads(answer)["results"][0]["features"]["price_volatility"]
    assert (lacking["status"], lacking["event_time"]) == ("missing", None)


def test_entities_with_two_key_fields() -> None:
    entities = [{"symbol": "A", "portfolio": "P1"}, {"portfolio": "P2", "symbol": "A"}]
    row = pack(Row(3, NOW, 0, NOW, Origin(bytes(16), 0, 0, 0), bytes(2), (2.0, 50.0)))
    rows: dict[RowId, Packed] = {
        RowId("position", ("P1", "A")): row,
        RowId("position", ("P2", "A")): None,
    }
    moment = Moment(NOW, lambda source, tier: False)
    features = ["held", "position_size"]
    expected = by_the_reader(features, entities, MemoryStore(rows), moment)
    question = PreparedQuestion(NAMES, NAMES.versions(features), ["symbol", "portfolio"])
    form = ObjectsForm(question, TimeTexts(AGE))
    for entity, answer in zip(entities, expected, strict=True):
        packed = [rows[one] for one in question.row_ids(entity)]
        found = question.evaluate(packed, [Tier.WARM], moment)
        assert form.one(msgspec.json.encode(entity), found, NOW) == answer


def test_what_cannot_be_asked() -> None:
    with pytest.raises(UnknownFeature):
        PreparedQuestion(NAMES, NAMES.versions(["price_sma_7"]), ["symbol"])
    with pytest.raises(WrongEntity):
        PreparedQuestion(NAMES, NAMES.versions(["current_price", "position_size"]), ["symbol"])
    with pytest.raises(Uncommon):
        PreparedQuestion(NAMES, NAMES.versions(["portfolio_exposure"]), ["portfolio"])
