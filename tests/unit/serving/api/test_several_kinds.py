"""Entities of several kinds in one request: each gets the features of its kind."""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from registry.definitions import Catalog, RowSchema
from registry.features_file import read
from registry.formats.origin import Origin
from registry.formats.row import Row, pack
from serving.api.answering import Answering
from serving.api.compact import CompactAnswer
from serving.api.entity_answers import FEW
from serving.api.forms import Form
from serving.errors import StoresUnavailable, WrongEntity
from serving.features.reader import Reader
from serving.stores.row_store import UNAVAILABLE, Group, MemberSet, Packed, RowId, Tier
from tests.support.row_stores import MemoryStore, NamedStore
from tests.support.served import catalog_of
from tests.support.shipped import SHIPPED
from tests.support.watches import FixedCatalog, OnTime

ADDED = """
[[feature]]
name = "momentum"
version = "1.0.0"
entity = ["symbol"]
expression = "price_sma_5 / price_sma_20 - 1"

[[feature]]
name = "held_value"
version = "1.0.0"
entity = ["symbol", "portfolio"]
expression = "position_size * current_price"
"""
OLDER = 11
"""A row schema of prices with fewer features than today's."""


def the_catalog() -> Catalog:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "features.toml"
        file.write_text(SHIPPED.read_text() + ADDED)
        catalog = catalog_of(read(file))
    prices = catalog.schemas[catalog.writing["price"]].features
    older = {OLDER: RowSchema(OLDER, "price", prices[:2])}
    return msgspec.structs.replace(catalog, schemas=catalog.schemas | older)


CATALOG = the_catalog()
CATALOGS: Any = FixedCatalog(CATALOG)
NAMES = CATALOGS.names
OF_SYMBOL = ["current_price", "volatility", "volatility@1.0.0", "price_sma_20@1.0.0", "momentum"]
OF_SYMBOL += ["current_volume"]
OF_POSITION = ["position_size", "held_value", "position_multiplier@1.0.0"]
OF_PORTFOLIO = ["portfolio_exposure", "portfolio_exposure_net@1.0.0"]
SYMBOLS, PORTFOLIOS = ["A", "B", 'ü"\\'], ["P", "Q"]
NOW = time.time_ns()
MOMENTS = re.compile(rb'("age_seconds":[^,}]*,?|"answered_at":"[^"]*",?)')
"""What differs between two answers that are given one after the other."""


class Situation(NamedTuple):
    """A request, and what the store has."""

    features: list[str]
    entities: list[dict[str, str]]
    rows: dict[RowId, Packed]
    tiers: dict[RowId, Tier]
    lagging: set[str]

    @property
    def body(self) -> bytes:
        return json.dumps({"features": self.features, "entities": self.entities}).encode()

    def store(self, kind: type[MemoryStore] = NamedStore) -> Any:
        members = {
            MemberSet("position", portfolio): [(portfolio, symbol) for symbol in SYMBOLS[:2]]
            for portfolio in PORTFOLIOS
        }
        closed: dict[Group, tuple[str, ...]] = {}
        return kind(self.rows, members, closed, self.tiers)


@st.composite
def packed_rows(draw: st.DrawFn, source: str) -> Packed:
    kind = draw(st.sampled_from(["row"] * 6 + ["older", "missing", "unavailable"]))
    if kind in ("missing", "unavailable"):
        return None if kind == "missing" else UNAVAILABLE
    schema = OLDER if kind == "older" and source == "price" else CATALOG.writing[source]
    n = len(CATALOG.schemas[schema].features)
    status = bytes(draw(st.lists(st.sampled_from([0, 0, 0, 1, 2]), min_size=n, max_size=n)))
    values = tuple(math.nan if one else draw(st.floats(-1e6, 1e6)) for one in status)
    age = draw(st.sampled_from([0, 3_600])) * 10**9
    return pack(Row(schema, NOW - age, 0, NOW, Origin(bytes(16), 0, 0, 0), status, values))


@st.composite
def situations(draw: st.DrawFn, sums: bool = False) -> Situation:
    """Entities of at least two kinds, often more than are answered one by one."""
    symbols = st.sampled_from(SYMBOLS).map(lambda symbol: {"symbol": symbol})
    positions = st.tuples(st.sampled_from(PORTFOLIOS), st.sampled_from(SYMBOLS)).map(
        lambda pair: {"portfolio": pair[0], "symbol": pair[1]}
    ) | st.just({"symbol": "A", "portfolio": "P"})
    portfolios = st.sampled_from(PORTFOLIOS).map(lambda portfolio: {"portfolio": portfolio})
    kinds: list[tuple[list[str], Any]] = [(OF_SYMBOL, symbols), (OF_POSITION, positions)]
    if sums:
        kinds.append((OF_PORTFOLIO, portfolios))
    features: list[str] = []
    entities: list[dict[str, str]] = []
    for names, of_kind in kinds:
        features += draw(st.lists(st.sampled_from(names), min_size=1, max_size=4))
        entities += draw(st.lists(of_kind, min_size=1, max_size=FEW))
    rows: dict[RowId, Packed] = {}
    for symbol in SYMBOLS:
        rows |= {RowId(s, (symbol,)): draw(packed_rows(s)) for s in ("price", "volume")}
        for portfolio in PORTFOLIOS:
            rows[RowId("position", (portfolio, symbol))] = draw(packed_rows("position"))
    tiers = {row: draw(st.sampled_from([Tier.HOT, Tier.WARM])) for row in rows}
    lagging = draw(st.sets(st.sampled_from(["ticks.price", "ticks.position"])))
    return Situation(
        draw(st.permutations(features)), draw(st.permutations(entities)), rows, tiers, lagging
    )


def answering(situation: Situation, prepares: bool) -> tuple[Answering, Counter[str]]:
    store, served = situation.store(), Counter[str]()
    workers: Any = OnTime(dict.fromkeys(situation.lagging, 0.0))
    rows = store if prepares else None
    return Answering(Reader(store), rows, CATALOGS, workers, served), served


def asked(situation: Situation, prepares: bool, form: Form) -> tuple[bytes, Counter[str]]:
    """The answer when it is asked twice, the second time with known texts.

    It is b"" where no value could be read.
    """
    answers, served = answering(situation, prepares)

    async def once() -> bytes:
        served.clear()
        try:
            return (await answers.many(situation.body, form))[0]
        except StoresUnavailable:
            return b""

    async def twice() -> bytes:
        await once()
        return await once()

    return asyncio.run(twice()), served


def plain(stream: bytes) -> tuple[Any, Any]:
    table = pa.ipc.open_stream(stream).read_all()
    return table.to_pydict(), [(f.name, str(f.type), f.metadata) for f in table.schema]


@given(situations(), st.sampled_from(Form))
@settings(max_examples=80)
def test_an_answer_is_the_readers_to_the_byte(situation: Situation, form: Form) -> None:
    ours, counted = asked(situation, True, form)
    readers, counted_by_reader = asked(situation, False, form)
    if form is Form.ARROW and ours and readers:
        assert plain(ours) == plain(readers)
    else:
        assert MOMENTS.sub(b"", ours) == MOMENTS.sub(b"", readers)
    assert counted == counted_by_reader


def is_of(name: str, entity: Mapping[str, str]) -> bool:
    return set(NAMES.feature(name).entity) == entity.keys()


@given(situations(sums=True), st.booleans())
@settings(max_examples=30)
def test_an_entity_is_answered_as_when_it_is_asked_alone(
    situation: Situation, prepares: bool
) -> None:
    answers, _ = answering(situation, prepares)

    async def both() -> tuple[bytes, list[bytes]]:
        alone = []
        for entity in situation.entities:
            own = [name for name in situation.features if is_of(name, entity)]
            request = json.dumps({"features": own, "entity": entity}).encode()
            with suppress(StoresUnavailable):
                alone.append((await answers.one(request))[0])
                continue
            unread = dict.fromkeys(own, "unavailable")
            alone.append(json.dumps({"entity": entity, "statuses": unread}).encode())
        return (await answers.many(situation.body))[0], alone

    try:
        together, alone = asyncio.run(both())
    except StoresUnavailable:
        reject()
    results = msgspec.json.decode(together, type=dict[str, list[msgspec.Raw]])["results"]
    for found, expected in zip(map(bytes, results), alone, strict=True):
        statuses = json.loads(expected).get("statuses")
        if statuses is None:
            assert MOMENTS.sub(b"", found) == MOMENTS.sub(b"", expected)
        else:
            features = json.loads(found)["features"]
            assert {name: value["status"] for name, value in features.items()} == statuses


def in_objects(situation: Situation, prepares: bool) -> list[dict[str, Any]]:
    answer, _ = asked(situation, prepares, Form.OBJECTS)
    if not answer:
        reject()
    results: list[dict[str, Any]] = json.loads(answer)["results"]
    assert [result["entity"] for result in results] == situation.entities
    return [result["features"] for result in results]


@given(situations(sums=True), st.booleans())
@settings(max_examples=30)
def test_columns_say_what_objects_say(situation: Situation, prepares: bool) -> None:
    """And nothing of a feature that is not of the entity's kind."""
    objects = in_objects(situation, prepares)
    answer, _ = asked(situation, prepares, Form.COMPACT)
    columns = msgspec.json.decode(answer, type=CompactAnswer)
    stream, _ = asked(situation, prepares, Form.ARROW)
    table = pa.ipc.open_stream(stream).read_all()
    assert list(columns.features) == list(dict.fromkeys(situation.features))
    for field in ("portfolio", "symbol"):
        known = [entity.get(field) for entity in situation.entities]
        assert table[field].to_pylist() == known
    for name, column in columns.features.items():
        statuses = column.status
        if not isinstance(statuses, list):
            statuses = [statuses] * len(objects)
        tiers: Any = columns.tier[column.event_time]
        tiers = tiers if isinstance(tiers, list) else [tiers] * len(objects)
        for i, values in enumerate(objects):
            found = (column.value[i], statuses[i], tiers[i])
            if name not in values:
                assert found == (None, None, None)
                assert columns.event_time[column.event_time][i] is None
            else:
                one = values[name]
                assert found == (one["value"], one["status"], one["tier"])
                time_of = columns.event_time[column.event_time][i]
                # A feature that a row lacks has the time of the others.
                assert time_of == one["event_time"] or one["event_time"] is None
        assert table[name].to_pylist() == column.value
        assert table[f"{name}.status"].to_pylist() == statuses
        lies_under = table[name].combine_chunks().to_numpy(zero_copy_only=False)
        assert np.isnan(lies_under[~table[name].is_valid().to_numpy()]).all()
        of_times = f"{column.event_time}.event_time"
        integers = table[f"{of_times}_ns"].to_pylist()
        texts = columns.event_time[column.event_time]
        assert [one is None for one in integers] == [one is None for one in texts]
        assert table[f"{column.event_time}.tier"].to_pylist() == tiers


def test_rows_are_read_once_for_all_kinds() -> None:
    situation = Situation(["current_price", "held_value"], [], {}, {}, set())
    entities = [{"symbol": "A"}, {"portfolio": "P", "symbol": "A"}, {"symbol": "A"}]
    situation = situation._replace(entities=entities)
    store = situation.store()
    workers: Any = OnTime()
    answers = Answering(Reader(store), None, CATALOGS, workers, Counter())
    asyncio.run(answers.many(situation.body))
    assert [sorted(rows) for rows in store.reads] == [
        [RowId("position", ("P", "A")), RowId("price", ("A",))]
    ]


SYMBOL, POSITION, PORTFOLIO = {"symbol": "A"}, {"portfolio": "P", "symbol": "A"}, {"portfolio": "P"}


@pytest.mark.parametrize("prepares", [True, False])
@pytest.mark.parametrize(
    ("features", "entities", "told"),
    [
        (
            ["current_price", "position_size"],
            [SYMBOL, SYMBOL],
            "position_size is a feature of (portfolio, symbol), not of (symbol): name portfolio, "
            "symbol",
        ),
        (
            ["current_price", "position_size", "portfolio_exposure"],
            [POSITION, SYMBOL],
            "portfolio_exposure is a feature of (portfolio), not of (portfolio, symbol) or "
            "(symbol): name portfolio",
        ),
        (
            ["current_price"],
            [SYMBOL, PORTFOLIO],
            "none of these features is of (portfolio): ask for one that is, as portfolio_exposure "
            "or portfolio_exposure_net, or leave the entity out",
        ),
        (
            ["current_price"],
            [SYMBOL, {"sector": "A"}],
            "none of these features is of (sector): features are of (portfolio), (portfolio, "
            "symbol), (symbol)",
        ),
        (
            ["volatility@1.0.0"],
            [PORTFOLIO],
            "volatility@1.0.0 is a feature of (symbol), not of (portfolio): name symbol",
        ),
    ],
)
def test_what_does_not_go_together(
    features: list[str], entities: Sequence[dict[str, str]], told: str, prepares: bool
) -> None:
    situation = Situation(features, list(entities), {}, {}, set())
    answers, served = answering(situation, prepares)
    for _ in range(2):
        with pytest.raises(WrongEntity, match=f"^{re.escape(told)}$"):
            asyncio.run(answers.many(situation.body))
    assert not served


def test_what_is_known_of_several_kinds_does_not_let_one_pass() -> None:
    """Texts of entities that were answered before, of which one kind is not asked about again."""
    both = Situation(["current_price", "position_size"], [SYMBOL, POSITION], {}, {}, set())
    answers, _ = answering(both, True)
    asyncio.run(answers.many(both.body))
    for entities in ([SYMBOL], [POSITION], [POSITION] * 20):
        with pytest.raises(WrongEntity):
            asyncio.run(answers.many(both._replace(entities=entities).body))
    asyncio.run(answers.many(both._replace(entities=[POSITION, SYMBOL, POSITION]).body))
