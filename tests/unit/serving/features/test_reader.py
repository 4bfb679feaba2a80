"""Values and their statuses, from rows in memory: no store and no clock of its own."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, count, product, repeat
from pathlib import Path

import msgspec
import pytest

from registry.features_file import read
from registry.formats.origin import Origin
from registry.formats.row import Row, ValueStatus, pack
from registry.formats.status import Status
from serving.features.lookup import Names
from serving.features.reader import Reader
from serving.features.values import Moment, Value
from serving.stores.breakers import Breaker
from serving.stores.fallback import Fallback
from serving.stores.row_store import (
    UNAVAILABLE,
    Group,
    Key,
    MemberSet,
    NamedRows,
    Packed,
    RowId,
    RowStore,
    Tier,
    TieredRows,
    Unavailable,
)
from tests.support.row_stores import MemoryStore, NamedStore
from tests.support.served import catalog_of
from tests.support.shipped import changed

CATALOG = catalog_of(read())
NAMES = Names(CATALOG)
NOW = 1_700_000_000 * 10**9
SECOND = 10**9
PRICE = RowId("price", ("A",))


def row(source: str, *values: float, age: int = 0, status: bytes | None = None) -> bytes:
    """A packed row of `source` with these values, `age` seconds old."""
    known = Origin(bytes(16), 0, 0, 0)
    statuses = bytes(len(values)) if status is None else status
    schema = CATALOG.writing[source]
    return pack(Row(schema, NOW - age * SECOND, 0, NOW, known, statuses, values))


def value(
    feature: str,
    entity: Mapping[str, str],
    store: RowStore,
    *lagging: str,
) -> Value:
    """What a feature of an entity is answered."""
    moment = Moment(NOW, lambda source, tier: source in lagging)
    (answer,) = asyncio.run(Reader(store).answer(NAMES, [feature], [entity], lambda: moment))
    assert answer.entity == entity
    return answer.features[feature]


@pytest.mark.parametrize(
    ("packed", "lagging", "status"),
    [
        (row("price", 1, 2, 3, 4), (), Status.OK),
        (row("price", 1, 2, 3, 4, age=60), (), Status.OK),
        (row("price", 1, 2, 3, 4, age=61), (), Status.STALE),
        (row("price", 1, 2, 3, 4), ("price",), Status.LAGGING),
        (row("price", 1, 2, 3, 4), ("volume",), Status.OK),
        (row("price", 1, 2, 3, 4, age=61), ("price",), Status.LAGGING),
        (row("price", *[math.nan] * 4, status=bytes([ValueStatus.WARMING]) * 4), (), "warming"),
        (row("price", *[math.nan] * 4, status=bytes([ValueStatus.UNDEFINED]) * 4), (), "undefined"),
        (row("price", *[math.nan] * 4, status=bytes([ValueStatus.CLOSED]) * 4), (), "missing"),
        (None, ("price",), Status.MISSING),
        (UNAVAILABLE, (), Status.UNAVAILABLE),
        (b"junk", (), Status.UNAVAILABLE),
        (row("price", 1, 2, 3, 4, status=b"\x09" * 4), (), Status.UNAVAILABLE),
        (row("price", 1, 2, 3), (), Status.UNAVAILABLE),
        (row("position", 1, 2), (), Status.MISSING),
    ],
    ids=[
        "fresh",
        "as old as it may be",
        "older",
        "its pipeline is behind",
        "another pipeline is behind",
        "older, and behind",
        "warming",
        "undefined",
        "closed",
        "no row",
        "no answer",
        "no packed row",
        "an unknown status",
        "another number of values than its schema",
        "a row schema without the feature",
    ],
)
def test_the_status_of_a_stored_feature(
    packed: Packed, lagging: tuple[str, ...], status: Status
) -> None:
    found = value("current_price", {"symbol": "A"}, MemoryStore({PRICE: packed}), *lagging)
    assert found.status == status
    assert (found.value == 1) == (status in (Status.OK, Status.STALE, Status.LAGGING))


def test_a_value_has_the_version_and_time_of_its_row() -> None:
    store = MemoryStore({PRICE: row("price", 1.5, 2, 3, 4, age=2)})
    found = value("current_price", {"symbol": "A"}, store)
    assert found == Value(
        value=1.5,
        status=Status.OK,
        version="1.0.0",
        event_time="2023-11-14T22:13:18.000000000Z",
        age_seconds=2.0,
        tier="warm",
    )
    missing = value("current_price", {"symbol": "B"}, store)
    assert msgspec.to_builtins(missing) == {
        "value": None,
        "status": "missing",
        "version": "1.0.0",
        "event_time": None,
        "age_seconds": None,
        "tier": "warm",
    }


def test_a_sum_is_of_all_members_or_of_none() -> None:
    rows: dict[RowId, Packed] = {
        RowId("position", ("P1", "A")): row("position", -3, 1),
        RowId("position", ("P1", "B")): row("position", 2, 50, age=3),
        PRICE: row("price", 10, 0, 0, 0),
        RowId("price", ("B",)): row("price", 4, 0, 0, 0),
    }
    members = {MemberSet("position", "P1"): [("P1", "A"), ("P1", "B")]}
    portfolio = {"portfolio": "P1"}
    net = value("portfolio_exposure_net", portfolio, MemoryStore(rows, members))
    assert (net.value, net.status, net.age_seconds) == (370, Status.OK, 3.0)
    behind = value("portfolio_exposure", portfolio, MemoryStore(rows, members), "price")
    assert (behind.value, behind.status) == (430, Status.LAGGING)
    assert value("portfolio_exposure", portfolio, MemoryStore(rows)).status == Status.UNAVAILABLE
    del rows[PRICE]
    partial = value("portfolio_exposure", portfolio, MemoryStore(rows, members))
    assert (partial.value, partial.status) == (None, Status.MISSING)


CLOSED = bytes([ValueStatus.CLOSED]) * 2
P1 = {"portfolio": "P1"}
GONE = row("position", math.nan, math.nan, status=CLOSED)


def portfolio(held: Mapping[str, Packed], prices: Mapping[str, Packed]) -> MemoryStore:
    """A store of the portfolio P1 and of prices, each by symbol."""
    rows = {RowId("position", ("P1", symbol)): packed for symbol, packed in held.items()}
    rows |= {RowId("price", (symbol,)): packed for symbol, packed in prices.items()}
    return MemoryStore(rows, {MemberSet("position", "P1"): [("P1", symbol) for symbol in held]})


def closed(age: int) -> bytes:
    return row("position", math.nan, math.nan, age=age, status=CLOSED)


def test_a_closed_position_is_missing_since_its_close() -> None:
    store = portfolio({"A": closed(3)}, {})
    found = value("position_size", {"portfolio": "P1", "symbol": "A"}, store)
    assert found == Value(
        value=None,
        status=Status.MISSING,
        version="1.0.0",
        event_time="2023-11-14T22:13:17.000000000Z",
        age_seconds=3.0,
        tier="warm",
    )


def test_a_closed_position_is_not_in_its_portfolio() -> None:
    """Neither its symbol's price nor when it was closed counts."""
    store = portfolio({"A": closed(9), "B": row("position", -2, 5, age=1)}, {"B": sma(7.0)})
    for feature, total in (("portfolio_exposure", 70.0), ("portfolio_exposure_net", -70.0)):
        found = value(feature, P1, store)
        assert (found.value, found.status, found.age_seconds) == (total, Status.OK, 1.0)


def test_a_portfolio_that_is_closed_is_nothing_since_its_last_close() -> None:
    store = portfolio({"A": closed(9), "B": closed(4), "C": closed(7)}, {})
    found = value("portfolio_exposure", P1, store)
    assert found == Value(
        value=0.0,
        status=Status.OK,
        version="1.0.0",
        event_time="2023-11-14T22:13:16.000000000Z",
        age_seconds=4.0,
        tier="warm",
    )
    behind = value("portfolio_exposure", P1, store, "position")
    assert (behind.value, behind.status) == (0.0, Status.LAGGING)
    assert value("portfolio_exposure", P1, store, "price").status == Status.OK


def test_what_was_closed_last_says_since_when_a_portfolio_is_nothing() -> None:
    """It is no member any more; while another position is open it does not count."""
    rows = {RowId("position", ("P1", "A")): closed(4)}
    last = {Group("position", ("P1",)): ("P1", "A")}
    nobody = {MemberSet("position", "P1"): list[tuple[str, ...]]()}
    found = value("portfolio_exposure", P1, MemoryStore(rows, nobody, last))
    assert found == Value(
        value=0.0,
        status=Status.OK,
        version="1.0.0",
        event_time="2023-11-14T22:13:16.000000000Z",
        age_seconds=4.0,
        tier="warm",
    )

    rows |= {RowId("position", ("P1", "B")): row("position", -2, 5, age=1)}
    rows |= {RowId("price", ("B",)): sma(7.0)}
    somebody = {MemberSet("position", "P1"): [("P1", "B")]}
    found = value("portfolio_exposure_net", P1, MemoryStore(rows, somebody, last))
    assert (found.value, found.status, found.age_seconds) == (-70.0, Status.OK, 1.0)


class Rolled(MemoryStore):
    """P1 is in A when its members are read for the first time, and in B from then on."""

    held = "A"

    async def members(
        self, wanted: Sequence[MemberSet], most: int
    ) -> list[list[Key] | Unavailable]:
        held, self.held = self.held, "B"
        return [[("P1", held)]]


def test_a_position_that_is_closed_between_two_reads_has_left() -> None:
    """In the moment of a roll a portfolio is not 0, which it never was."""
    rows = {RowId("position", ("P1", "A")): closed(0), RowId("price", ("B",)): sma(7.0)}
    rows |= {RowId("position", ("P1", "B")): row("position", 3, 1)}
    store = Rolled(rows, {}, {Group("position", ("P1",)): ("P1", "A")})
    found = value("portfolio_exposure", P1, store)
    assert (found.value, found.status) == (21.0, Status.OK)
    assert len(store.reads) == 2


class Side(NamedStore):
    """One of two stores of P1. After each read the breaker of warm is as `opens` says next."""

    def __init__(self, tier: Tier, opens: Iterator[bool], held: Mapping[str, Packed]) -> None:
        rows = {RowId("position", ("P1", symbol)): packed for symbol, packed in held.items()}
        rows |= {RowId("price", (symbol,)): sma(1.0) for symbol in "ABC"}
        now = [("P1", symbol) for symbol, packed in held.items() if packed != GONE]
        gone = [("P1", symbol) for symbol, packed in held.items() if packed == GONE]
        last = dict(zip([Group("position", ("P1",))], gone, strict=False))
        super().__init__(rows, {MemberSet("position", "P1"): now}, last)
        self.tier, self.opens = tier, opens
        self.breaker = Breaker("warm", clock=count(0, 10).__next__)  # a probe is always due
        self.named: NamedRows | None = None
        self.after_read = lambda: None

    def is_down(self, row: RowId) -> bool:
        return False

    def has_members_down(self, wanted: Sequence[MemberSet]) -> bool:
        return False

    def change(self) -> None:
        """Open the breaker, or close it."""
        if next(self.opens):
            self.breaker.failed("down", decisive=True)
        elif self.breaker.begin_probe():
            self.breaker.end_probe(answered=True)

    async def rows(self, wanted: Sequence[RowId]) -> TieredRows:
        found = await super().rows(wanted)
        self.after_read()
        return TieredRows(found.rows, self.tier)

    async def members(
        self, wanted: Sequence[MemberSet], most: int
    ) -> list[list[Key] | Unavailable]:
        found = await super().members(wanted, most)
        self.after_read()
        return found

    async def last_closed(self, wanted: Sequence[Group]) -> list[Key | Unavailable | None]:
        found = await super().last_closed(wanted)
        self.after_read()
        return found


def test_a_sum_is_of_one_store_whenever_the_breaker_opens_and_closes() -> None:
    """Warm knows that A was closed, and that C was opened with what A was."""
    new = {"A": GONE, "B": row("position", 5, 1), "C": row("position", 3, 1)}
    old = {"A": row("position", 3, 1), "B": row("position", 4, 1)}
    seen = set()
    for opens in product((False, True), repeat=5):
        told = chain(opens, repeat(False))
        warm, cold = Side(Tier.WARM, told, new), Side(Tier.COLD, told, old)
        warm.after_read = cold.after_read = warm.change
        warm.change()
        found = value("portfolio_exposure", P1, Fallback(warm, cold))
        assert found.status == Status.OK
        seen.add((found.value, found.tier))
    assert seen == {(8.0, "warm"), (7.0, "cold")}


def test_a_portfolio_that_was_never_seen_is_missing() -> None:
    found = value("portfolio_exposure", P1, portfolio({}, {}))
    assert (found.value, found.status, found.event_time) == (None, Status.MISSING, None)


@pytest.mark.parametrize(
    "price", [None, UNAVAILABLE, "old", "undefined"], ids=["none", "no answer", "old", "undefined"]
)
def test_a_position_of_nothing_needs_no_price(price: Packed | str) -> None:
    packed = {
        "old": row("price", 1, 2, 3, 4, age=30 * 86_400),
        "undefined": row("price", *[math.nan] * 4, status=bytes([ValueStatus.UNDEFINED]) * 4),
    }
    prices = {"A": packed[price] if isinstance(price, str) else price, "B": sma(7.0)}
    nothing = row("position", -0.0, 1, age=5)
    found = value("portfolio_exposure_net", P1, portfolio({"A": nothing}, prices))
    assert (str(found.value), found.status, found.age_seconds) == ("0.0", Status.OK, 5.0)
    both = portfolio({"A": nothing, "B": row("position", 3, 1)}, prices)
    assert value("portfolio_exposure", P1, both).value == 21.0


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        (None, (None, Status.MISSING)),
        (UNAVAILABLE, (None, Status.UNAVAILABLE)),
        (closed(5), (7.0, Status.OK)),
        (row("position", 0, 1), (14.0, Status.OK)),
    ],
    ids=["no row", "no answer", "closed", "open"],
)
def test_a_sum_that_reads_nothing_of_its_members_knows_who_is_closed(
    tmp_path: Path, held: Packed, expected: tuple[float | None, Status]
) -> None:
    old = 'expression = "sum(abs(position_size * position_multiplier * current_price))"'
    names = Names(catalog_of(read(changed(tmp_path, old, 'expression = "sum(current_price)"'))))
    held_both = {"A": held, "B": row("position", 1, 1)}
    store = portfolio(held_both, {"A": sma(7.0), "B": sma(7.0)})
    moment = Moment(NOW, lambda source, tier: False)
    (answer,) = asyncio.run(
        Reader(store).answer(names, ["portfolio_exposure"], [P1], lambda: moment)
    )
    found = answer.features["portfolio_exposure"]
    assert (found.value, found.status) == expected


def sma(price: float) -> bytes:
    """A row of a symbol whose price never changed."""
    return row("price", price, price, price, 0.0)


def test_a_request_is_one_read() -> None:
    store = MemoryStore()
    features, entities = ["current_price", "volatility"], [{"symbol": s} for s in "ABAB"]
    moment = Moment(NOW, lambda source, tier: False)
    answers = asyncio.run(Reader(store).answer(NAMES, features, entities, lambda: moment))
    assert [answer.entity for answer in answers] == entities
    assert store.reads == [[RowId("price", ("A",)), RowId("price", ("B",))]]
