"""What goes on while rows are read, and what is counted."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec
import pytest

from registry.features_file import read
from registry.formats.origin import Origin
from registry.formats.row import Row, pack
from registry.formats.status import Status
from serving.api.answering import Answering
from serving.api.entity_answers import FEW
from serving.api.forms import Form
from serving.errors import StoresUnavailable, UnknownFeature
from serving.features.lookup import Names
from serving.features.reader import Reader
from serving.stores.row_store import UNAVAILABLE, Packed, RowId, Tier, TieredRows, Unavailable
from tests.support.row_stores import MemoryStore
from tests.support.served import catalog_of

CATALOG = catalog_of(read())
DAMAGED = b"junk"


def row(schema: int, *values: float, age: int = 0) -> bytes:
    origin = Origin(bytes(16), 0, 0, 0)
    return pack(Row(schema, 10**18 - age * 10**9, 0, 10**18, origin, bytes(len(values)), values))


class Store(MemoryStore):
    """Rows in memory that are also read by name; `during` is called while they are read."""

    def __init__(self, rows: dict[RowId, Packed]) -> None:
        super().__init__(rows)
        self.by_name = {self.name(one): packed for one, packed in rows.items()}
        self.during: Callable[[], None] = lambda: None
        self.is_there = True

    def name(self, row: RowId) -> bytes:
        return "/".join((row.source, *row.entity)).encode()

    async def rows(self, wanted: Sequence[RowId]) -> TieredRows:
        self.during()
        return await super().rows(wanted)

    async def named_rows(
        self, wanted: Sequence[tuple[str, Sequence[bytes]]]
    ) -> list[TieredRows] | Unavailable:
        rows = [[self.by_name.get(name) for name in names] for _, names in wanted]
        found = [TieredRows(of, Tier.WARM) for of in rows]
        self.during()
        return found if self.is_there else UNAVAILABLE


class Watch:
    """A catalog and workers of which a test decides what they say."""

    def __init__(self) -> None:
        self.names = Names(CATALOG)
        self.late: set[str] = set()
        self.until = math.inf

    @property
    def lag(self) -> Decided:
        return Decided(frozenset(self.late), self.until)


class Decided(NamedTuple):
    """What is known of lag at one moment."""

    late: frozenset[str]
    until: float

    def on_time_until(self, topic: str, sink: str) -> float:
        return 0.0 if topic in self.late else self.until


def answering(store: Store) -> tuple[Answering, Any, Counter[str]]:
    watch: Any = Watch()
    served: Counter[str] = Counter()
    return Answering(Reader(store), store, watch, watch, served), watch, served


def online(feature: str, **entity: str) -> bytes:
    return json.dumps({"features": [feature], "entity": entity}).encode()


def batch(feature: str, symbols: Sequence[str]) -> bytes:
    entities = [{"symbol": symbol} for symbol in symbols]
    return json.dumps({"features": [feature], "entities": entities}).encode()


def status(answer: bytes, feature: str) -> str:
    found: str = json.loads(answer)["features"][feature]["status"]
    return found


HELD = RowId("position", ("P", "A"))


def test_a_worker_that_catches_up_while_rows_are_read_does_not_make_them_fresh() -> None:
    """The row is from before that, and has no `max_age` that would show it."""
    store = Store({HELD: row(CATALOG.writing["position"], 7.0, 1.0, age=3_600)})
    answers, watch, _ = answering(store)
    watch.late = {"ticks.position"}
    store.during = watch.late.clear
    question = online("position_size", portfolio="P", symbol="A")
    assert status(asyncio.run(answers.one(question))[0], "position_size") == "lagging"
    assert status(asyncio.run(answers.one(question))[0], "position_size") == "ok"


@pytest.mark.parametrize("damaged", [False, True], ids=["prepared", "by the reader"])
def test_a_source_that_gets_late_while_rows_are_read_is_lagging(damaged: bool) -> None:
    store = Store({HELD: row(CATALOG.writing["position"], 7.0, 1.0)})
    if damaged:
        store.by_name[store.name(HELD)] = DAMAGED
    answers, watch, _ = answering(store)
    watch.until = time.time() + 0.1
    reads = iter([0.0, 0.11] if damaged else [0.11])  # the reader reads again
    store.during = lambda: time.sleep(next(reads))
    question = online("position_size", portfolio="P", symbol="A")
    assert status(asyncio.run(answers.one(question))[0], "position_size") == "lagging"


def test_a_catalog_that_changes_while_rows_are_read_changes_the_next_answer() -> None:
    store = Store({HELD: row(CATALOG.writing["position"], 7.0, 1.0)})
    answers, watch, _ = answering(store)
    question = online("position_size", portfolio="P", symbol="A")

    def change() -> None:
        features = CATALOG.features.items()
        left = {ref: f for ref, f in features if f.name != "position_size" and not f.derived}
        active = {name: v for name, v in CATALOG.active.items() if f"{name}@{v}" in left}
        watch.names = Names(msgspec.structs.replace(CATALOG, features=left, active=active))

    store.during = change
    assert status(asyncio.run(answers.one(question))[0], "position_size") == "ok"
    with pytest.raises(UnknownFeature):
        asyncio.run(answers.one(question))


@pytest.mark.parametrize("n", [2, FEW + 1])
@pytest.mark.parametrize("form", Form)
def test_a_served_value_is_counted_once(n: int, form: Form) -> None:
    """Also where a damaged row sends the whole request to the reader after some were answered."""
    symbols = [f"S{i}" for i in range(n)]
    good = row(CATALOG.writing["volume"], 1.0, 2.0)
    rows: dict[RowId, Packed] = {RowId("volume", (symbol,)): good for symbol in symbols}
    store = Store(rows)
    answers, _, served = answering(store)
    asyncio.run(answers.many(batch("current_volume", symbols), form))
    assert served == {Status.STALE: n}
    served.clear()
    damaged = RowId("volume", (symbols[-1],))
    store.by_name[store.name(damaged)] = rows[damaged] = DAMAGED
    asyncio.run(answers.many(batch("current_volume", symbols), form))
    assert served == {Status.STALE: n - 1, Status.UNAVAILABLE: 1}


@pytest.mark.parametrize("n", [1, FEW + 1])
def test_a_store_that_does_not_answer(n: int) -> None:
    store = Store({})
    store.is_there = False
    answers, _, served = answering(store)
    for form in Form:
        with pytest.raises(StoresUnavailable):
            asyncio.run(answers.many(batch("current_price", ["A"] * n), form))
    assert served == {Status.UNAVAILABLE: n * len(Form)}
    with pytest.raises(StoresUnavailable):
        asyncio.run(answers.one(online("current_price", symbol="A")))


@pytest.mark.parametrize("n", [2, FEW + 1])
def test_one_value_that_could_be_read_makes_an_answer(n: int) -> None:
    good = row(CATALOG.writing["volume"], 1.0, 2.0)
    rows: dict[RowId, Packed] = {RowId("volume", (f"S{i}",)): UNAVAILABLE for i in range(n - 1)}
    store = Store({**rows, RowId("volume", ("GOOD",)): good})
    answers, _, served = answering(store)
    symbols = [*(f"S{i}" for i in range(n - 1)), "GOOD"]
    found = json.loads(asyncio.run(answers.many(batch("current_volume", symbols)))[0])
    values = [one["features"]["current_volume"] for one in found["results"]]
    assert [value["status"] for value in values] == ["unavailable"] * (n - 1) + ["stale"]
    assert served == {Status.UNAVAILABLE: n - 1, Status.STALE: 1}
