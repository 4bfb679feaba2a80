"""What is logged of an answer is what the answer said, and the rows are those it was made of."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.definitions import Catalog
from registry.features_file import read
from registry.formats.origin import Origin
from registry.formats.row import Row, pack
from registry.formats.served_log import Served, bits_of, read_served
from registry.formats.status import Status
from serving.api.answering import Answering, Asking, Records
from serving.api.entity_answers import FEW
from serving.api.forms import Form
from serving.errors import StoresUnavailable
from serving.features.reader import Reader
from serving.features.served_values import MOST_ROWS, MOST_VALUES
from serving.features.table import ListedColumn
from serving.served_log import ServedLog
from serving.stores.row_store import UNAVAILABLE, Group, MemberSet, Packed, RowId, Tier
from serving.usage import Usage
from tests.support.examples import examples
from tests.support.row_stores import NamedStore
from tests.support.served import catalog_of
from tests.support.shipped import SHIPPED
from tests.support.watches import FixedCatalog, OnTime

ADDED = """
[[feature]]
name = "held_value"
version = "1.0.0"
entity = ["symbol", "portfolio"]
expression = "position_size * current_price"
"""
REFS = {
    "current_price": ("current_price", ["price"]),
    "volatility": ("price_volatility", ["price"]),
    "volume_sma_10@1.0.0": ("volume_sma_10", ["volume"]),
    "position_size": ("position_size", ["position"]),
    "held_value": ("held_value", ["position", "price"]),
    "portfolio_exposure": ("portfolio_exposure", ["position", "price"]),
}
"""By requested names: the feature that is meant, and the sources of its rows."""

OF_KIND = [list(REFS)[:3], list(REFS)[3:5], list(REFS)[5:]]
SYMBOLS, PORTFOLIOS, MEMBERS = ["A", "B", 'ü"\\'], ["P", "Q"], ["A", "B"]
DAMAGED = b"junk"
NOW = time.time_ns()


def the_catalog() -> Catalog:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "features.toml"
        file.write_text(SHIPPED.read_text() + ADDED)
        return catalog_of(read(file))


CATALOG = the_catalog()
CATALOGS: Any = FixedCatalog(CATALOG)


class Situation(NamedTuple):
    """What is asked, and what the store has."""

    features: list[str]
    entities: list[dict[str, str]]
    rows: dict[RowId, Packed]
    origins: dict[RowId, Origin]
    """Of the rows that can be read."""
    tiers: dict[RowId, Tier]
    late: set[str]

    def store(self) -> Any:
        members = {
            MemberSet("position", of): [(of, symbol) for symbol in MEMBERS] for of in PORTFOLIOS
        }
        closed: dict[Group, tuple[str, ...]] = {}
        return NamedStore(self.rows, members, closed, self.tiers)

    def ids(self, name: str, entity: dict[str, str]) -> list[RowId]:
        """The rows that a value is made of."""
        positions = [entity] if "symbol" in entity else [{**entity, "symbol": m} for m in MEMBERS]
        return [
            RowId(source, tuple(one[field] for field in CATALOG.sources[source].key))
            for one in positions
            for source in REFS[name][1]
        ]


@st.composite
def situations(draw: st.DrawFn, kinds: int = 3) -> Situation:
    """Entities of some kinds, of which a sum over others is one; rows of all sorts."""
    symbols, portfolios = st.sampled_from(SYMBOLS), st.sampled_from(PORTFOLIOS)
    of_kinds: list[Any] = [
        st.builds(lambda s: {"symbol": s}, symbols),
        st.builds(lambda p, s: {"portfolio": p, "symbol": s}, portfolios, symbols),
        st.builds(lambda p: {"portfolio": p}, portfolios),
    ]
    some = draw(st.sets(st.integers(0, kinds - 1), min_size=1))
    features: list[str] = []
    entities: list[dict[str, str]] = []
    for kind in some:
        features += draw(st.lists(st.sampled_from(OF_KIND[kind]), min_size=1, max_size=3))
        entities += draw(st.lists(of_kinds[kind], min_size=1, max_size=FEW))
    rows: dict[RowId, Packed] = {}
    origins: dict[RowId, Origin] = {}
    ids = [RowId(source, (s,)) for source in ("price", "volume") for s in SYMBOLS]
    ids += [RowId("position", (p, s)) for p in PORTFOLIOS for s in SYMBOLS]
    for number, row in enumerate(ids):
        found = draw(st.sampled_from(["row"] * 6 + [None, UNAVAILABLE, DAMAGED]))
        if found != "row":
            rows[row] = found  # type: ignore[assignment]
            continue
        schema = CATALOG.writing[row.source]
        n = len(CATALOG.schemas[schema].features)
        status = bytes(draw(st.lists(st.sampled_from([0, 0, 0, 1, 2]), min_size=n, max_size=n)))
        values = tuple(math.nan if one else draw(st.floats(-1e6, 1e6)) for one in status)
        age = draw(st.sampled_from([0, 3_600])) * 10**9
        origin = origins[row] = Origin(bytes([number] * 16), number, 10**12 + number, number % 3)
        rows[row] = pack(Row(schema, NOW - age, 0, NOW, origin, status, values))
    tiers = {row: draw(st.sampled_from([Tier.HOT, Tier.WARM, Tier.COLD])) for row in ids}
    late = draw(st.sets(st.sampled_from(["ticks.price", "ticks.position"])))
    return Situation(features, draw(st.permutations(entities)), rows, origins, tiers, late)


def logged(situation: Situation, ask: Any, prepares: bool = True, every: int = 1) -> Any:
    """What `ask` has of the answers, and what is in the log then; None where none was given."""
    store, workers = situation.store(), OnTime(dict.fromkeys(situation.late, 0.0))
    with TemporaryDirectory() as folder:
        log = ServedLog(Path(folder) / "served", every)
        answers = Answering(
            *(Reader(store), store if prepares else None, CATALOGS, workers, Counter()),  # type: ignore[arg-type]
            records=Records(log, Usage()),
        )
        try:
            answer = asyncio.run(ask(answers))
        except StoresUnavailable:
            answer = None
        finally:
            log.close()
        return answer, list(read_served(Path(folder) / "served")), log


Told = tuple[str, str, str, str | None, str | None]
"""A feature, its entity as a text, the bits, the status and the tier of its value."""


def told(name: str, entity: dict[str, str], value: Any, status: str, tier: str | None) -> Told:
    bits = "" if value is None else bits_of(value)
    return f"{REFS[name][0]}@1.0.0", json.dumps(entity, sort_keys=True), bits, status, tier


def of_objects(answer: bytes) -> Iterator[Told]:
    parsed = json.loads(answer)
    for one in parsed.get("results", [parsed]):
        for name, v in one["features"].items():
            yield told(name, one["entity"], v["value"], v["status"], v["tier"])


def of_compact(answer: bytes) -> Iterator[Told]:
    parsed = json.loads(answer)
    for name, column in parsed["features"].items():
        tiers, statuses = parsed["tier"][column["event_time"]], column["status"]
        for index, entity in enumerate(parsed["entities"]):
            status = statuses[index] if isinstance(statuses, list) else statuses
            tier = tiers[index] if isinstance(tiers, list) else tiers
            if status is not None:
                yield told(name, entity, column["value"][index], status, tier)


def of_arrow(answer: bytes) -> Iterator[Told]:
    table = pa.ipc.open_stream(answer).read_all()
    columns = table.to_pydict()
    for field in table.schema:
        if not field.metadata:
            continue
        name, times = field.name, field.metadata[b"event_time"].decode()
        tiers = columns[times.replace(".event_time", ".tier")]
        for index, status in enumerate(columns[f"{name}.status"]):
            entity = {
                key: columns[key][index]
                for key in ("symbol", "portfolio")
                if key in columns and columns[key][index] is not None
            }
            if status is not None:
                yield told(name, entity, columns[name][index], status, tiers[index])


def of_log(served: Served) -> Iterator[Told]:
    for one in served.values:
        entity = json.dumps(one.entity, sort_keys=True)
        yield one.feature, entity, one.bits or "", one.status.value, one.tier


def check_rows(situation: Situation, served: Served) -> None:
    """Every value has the rows that it was made of, as they were."""
    names = {f"{ref}@1.0.0": name for name, (ref, _) in REFS.items()}
    for value in served.values:
        rows = [served.rows[number] for number in value.rows]
        found = {RowId(row.source, row.entity): row for row in rows}
        assert found.keys() == set(situation.ids(names[value.feature], value.entity))
        for id, row in found.items():
            assert row.origin == situation.origins.get(id)
            has_row = id in situation.origins
            assert row.schema_id == (CATALOG.writing[id.source] if has_row else None)
            if situation.rows[id] in (UNAVAILABLE, DAMAGED):
                assert row.tier is None
            else:
                assert row.tier == situation.tiers[id].name.lower()
                is_late = f"ticks.{id.source}" in situation.late
                assert row.lagging == is_late
        worst = {row.tier for row in rows}
        if None not in worst:
            colder = max(Tier[str(tier).upper()] for tier in worst)
            assert value.tier == colder.name.lower()
    assert served.left_out == 0
    assert NOW <= served.moment <= time.time_ns()


PARSERS = {Form.OBJECTS: of_objects, Form.COMPACT: of_compact, Form.ARROW: of_arrow}


@given(situations(), st.sampled_from(Form), st.booleans())
@examples(2)
def test_a_batch(situation: Situation, form: Form, prepares: bool) -> None:
    body = json.dumps({"features": situation.features, "entities": situation.entities}).encode()

    async def ask(answers: Answering) -> bytes:
        return (await answers.many(body, form, Asking(request_id="the id")))[0]

    answer, records, _ = logged(situation, ask, prepares)
    if answer is None:
        assert records == []
        return
    (served,) = records
    assert Counter(of_log(served)) == Counter(PARSERS[form](answer))
    assert served.request_id == "the id"
    check_rows(situation, served)


@given(situations(), st.booleans())
@examples(2)
def test_one_entity(situation: Situation, prepares: bool) -> None:
    entity = situation.entities[0]
    of_kind = [
        name
        for name in situation.features
        if set(CATALOG.features[f"{REFS[name][0]}@1.0.0"].entity) == set(entity)
    ]
    body = json.dumps({"features": of_kind, "entity": entity}).encode()

    async def ask(answers: Answering) -> list[bytes]:
        return [(await answers.one(body))[0] for _ in range(2)]  # the second is asked for again

    answer, records, _ = logged(situation, ask, prepares)
    if answer is None:
        assert records == []
        return
    for each, served in zip(answer, records, strict=True):
        assert Counter(of_log(served)) == Counter(of_objects(each))
        check_rows(situation, served)


@given(situations(kinds=1), st.booleans())
def test_columns_for_clients_of_feast(situation: Situation, prepares: bool) -> None:
    async def ask(answers: Answering) -> dict[str, ListedColumn]:
        found, _ = await answers.columns(answers.names, situation.features, situation.entities)
        return found

    answer, records, _ = logged(situation, ask, prepares)
    if answer is None:
        assert records == []
        return
    (served,) = records
    statuses = list(Status)
    expected = Counter(
        told(name, entity, None if math.isnan(value) else value, statuses[rank], None)
        for name, (values, ranks, _) in answer.items()
        for entity, value, rank in zip(situation.entities, values, ranks, strict=True)
    )
    assert Counter(of_log(served)) == expected
    for value in served.values:
        assert [served.rows[number].entity for number in value.rows] == [(value.entity["symbol"],)]


def large(count: int) -> Situation:
    """The prices and volumes of many symbols."""
    origin, schemas = Origin(bytes(16), 0, 0, 0), CATALOG.writing
    rows: dict[RowId, Packed] = {}
    for source in ("price", "volume", "position"):
        n = len(CATALOG.schemas[schemas[source]].features)
        packed = pack(Row(schemas[source], NOW, 0, NOW, origin, bytes(n), (1.0,) * n))
        key = ("P",) if source == "position" else ()
        rows |= {RowId(source, (*key, f"S{i}")): packed for i in range(count)}
    entities = [{"symbol": f"S{i}"} for i in range(count)]
    return Situation(OF_KIND[0], entities, rows, {}, dict.fromkeys(rows, Tier.WARM), set())


@pytest.mark.parametrize("prepares", [True, False])
def test_of_a_large_answer_some_values_are_noted_and_the_rest_counted(prepares: bool) -> None:
    situation = large(400)
    body = json.dumps({"features": situation.features, "entities": situation.entities}).encode()
    _, (served,), _ = logged(situation, lambda answers: answers.many(body), prepares)
    assert len(served.values) == MOST_VALUES
    assert served.left_out == 3 * 400 - MOST_VALUES


def test_a_sum_of_more_rows_than_there_is_room_for_is_left_out() -> None:
    members = MOST_ROWS // 2 + 1
    situation = large(members)
    store = NamedStore(
        situation.rows,
        {MemberSet("position", "P"): [("P", f"S{i}") for i in range(members)]},
    )
    body = json.dumps({"features": ["portfolio_exposure"], "entity": {"portfolio": "P"}}).encode()

    class Held(Situation):
        def store(self) -> Any:
            return store

    answer, (served,), _ = logged(Held(*situation), lambda answers: answers.one(body))
    assert json.loads(answer[0])["features"]["portfolio_exposure"]["value"] == members
    assert (served.values, served.rows, served.left_out) == ((), (), 1)


def test_a_log_that_is_off_notes_nothing() -> None:
    situation = large(2)
    body = json.dumps({"features": situation.features, "entities": situation.entities}).encode()

    async def ask(answers: Answering) -> None:
        for _ in range(10):
            await answers.many(body)

    _, records, log = logged(situation, ask, every=0)
    assert (records, log.requests) == ([], 0)
