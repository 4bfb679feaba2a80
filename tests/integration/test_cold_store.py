"""Rows, members and last closes read from Postgres: the same as Redis has, to the byte."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import redis
from sqlalchemy import Engine

from registry.database.month_partitions import attach_ahead
from registry.definitions import Catalog
from registry.formats.row import unpack
from serving.errors import TooLarge
from serving.stores import cold
from serving.stores.cold import ColdStore
from serving.stores.postgres_reads import PostgresReads
from serving.stores.row_store import UNAVAILABLE, Group, MemberSet, RowId, Tier
from serving.stores.warm import WarmStore
from tests.support.apps import in_a_loop
from tests.support.both_stores import Log, log_of
from tests.support.network import network
from tests.support.sinks import query
from tests.support.stored import stored_row

SYMBOLS = [f"S{number}" for number in range(30)]
DAY_MS = 86_400_000


@pytest.fixture
def log(recorded: Catalog, redis_database: str, postgres_database: str) -> Iterator[Log]:
    with log_of(recorded, redis_database, postgres_database) as made:
        yield made


def trades(symbols: list[str], each: int) -> Iterator[dict[str, Any]]:
    for n in range(each):
        for number, symbol in enumerate(symbols):
            yield {"symbol": symbol, "price": 100 + number + n / 7}


def change(engine: Engine, statement: str) -> Any:
    """Changes what is stored; the first value that is returned."""
    with engine.begin() as connection:
        return connection.exec_driver_sql(statement).scalar()


@in_a_loop
async def test_rows_are_those_of_redis_to_the_byte(
    log: Log, redis_database: str, postgres_database: str
) -> None:
    """Windows that are full and that are not, no value, old rows, several in one millisecond."""
    now = time.time_ns() // 10**6
    log.add("price", *({"symbol": "OLD", "price": p, "ts": now - 400 * DAY_MS} for p in (1, 2)))
    log.add("price", *trades(SYMBOLS, 25))
    log.add("price", *({"symbol": "NEG", "price": p} for p in [1, -1] * 11))
    log.add("price", {"symbol": "é\u2028😀", "price": 3})
    log.add("volume", *({"symbol": s, "volume": 7} for s in SYMBOLS))
    wanted = [RowId("price", (s,)) for s in [*SYMBOLS, "OLD", "NEG", "é\u2028😀", "NOBODY"]]
    wanted += [RowId("volume", (s,)) for s in [*SYMBOLS, "OLD"]]
    store = ColdStore(postgres_database, reads=PostgresReads(postgres_database, seconds=20))
    try:
        found = await store.rows(wanted)
        by_name = await store.named_rows(
            [("price", [b"S1", b"NOBODY", b"S1"]), ("volume", [b"S2", b"OLD"])]
        )
    finally:
        await store.close()
    with redis.Redis.from_url(redis_database) as client:
        stored = [stored_row(client, row.source, row.entity[0]) for row in wanted]
    assert found.tier is Tier.COLD
    assert found.rows == stored
    assert sum(row is None for row in stored) == 2
    rows = dict(zip(wanted, stored, strict=True))
    assert not isinstance(by_name, type(UNAVAILABLE))
    assert [one.rows for one in by_name] == [
        [rows[RowId("price", ("S1",))], None, rows[RowId("price", ("S1",))]],
        [rows[RowId("volume", ("S2",))], None],
    ]


@in_a_loop
async def test_of_several_row_schemas_the_newest_tick_and_then_the_newest_schema_counts(
    log: Log, recorded: Catalog, postgres_database: str, engine: Engine
) -> None:
    now = time.time_ns() // 10**6
    log.add("price", *({"symbol": s, "price": 1, "ts": now} for s in ("BOTH", "LATER", "SAME")))
    old = recorded.writing["price"]
    new = change(
        engine,
        "INSERT INTO tickwell.row_schemas (source, features)"
        f" SELECT source, features || '{{more@1}}' FROM tickwell.row_schemas WHERE id = {old}"
        " RETURNING id",
    )
    later = {"BOTH": 0, "LATER": -5, "SAME": 5}
    for symbol, nanoseconds in later.items():
        change(
            engine,
            "INSERT INTO tickwell.feature_rows SELECT"
            f" {new}, entity, event_time + {nanoseconds}, sequence, revision, tick_time, seq, op,"
            " fields, features || '{7}', status || '\\x00', known_at, topic_id, partition,"
            f" \"offset\", index FROM tickwell.feature_rows WHERE entity = '{symbol}' RETURNING 1",
        )
    change(
        engine,  # a repair, which is not what is served
        "INSERT INTO tickwell.feature_rows SELECT schema_id, entity, event_time + 9, sequence, 1,"
        " tick_time, seq, op, fields, features, status, known_at, topic_id, partition,"
        ' "offset", index FROM tickwell.feature_rows RETURNING 1',
    )
    store = ColdStore(postgres_database, reads=PostgresReads(postgres_database, seconds=20))
    try:
        found = await store.rows([RowId("price", (symbol,)) for symbol in later])
    finally:
        await store.close()
    rows = [unpack(row) for row in found.rows if isinstance(row, bytes)]
    assert [row.schema_id for row in rows] == [new, old, new]
    assert [len(row.values) for row in rows] == [5, 4, 5]
    assert {row.event_time for row in rows} == {now * 10**6, now * 10**6 + 5}


@in_a_loop
async def test_a_damaged_row_is_unavailable_alone(
    log: Log, postgres_database: str, engine: Engine
) -> None:
    """Also where an older row of the same entity could be read: that is not the newest."""
    now = time.time_ns() // 10**6
    log.add("price", {"symbol": "SHORT", "price": 3, "ts": now - 400 * DAY_MS})
    log.add("price", *({"symbol": s, "price": 1, "ts": now} for s in ("WELL", "SHORT", "NULL")))
    damages = {"SHORT": "features[1:2]", "NULL": "array_replace(features, features[1], NULL)"}
    for symbol, features in damages.items():
        change(
            engine,
            f"UPDATE tickwell.feature_rows SET features = {features} WHERE entity = '{symbol}'"
            f" AND event_time = {now * 10**6} RETURNING 1",
        )
    store = ColdStore(postgres_database, reads=PostgresReads(postgres_database, seconds=20))
    try:
        wanted = [RowId("price", (s,)) for s in ("SHORT", "WELL", "NULL", "NOBODY")]
        short, well, null, nobody = (await store.rows(wanted)).rows
    finally:
        await store.close()
    assert (short, null, nobody) == (UNAVAILABLE, UNAVAILABLE, None)
    assert isinstance(well, bytes)
    assert unpack(well).values[0] == 1.0
    assert not store.breaker.is_open


@in_a_loop
async def test_members_and_last_closes_are_those_of_redis(
    log: Log, redis_database: str, postgres_database: str
) -> None:
    def position(portfolio: str, symbol: str, op: str = "trade", **more: Any) -> dict[str, Any]:
        said = {"quantity": 5} if op == "trade" else {"op": op}
        return {"portfolio": portfolio, "symbol": symbol, **said, **more}

    now = time.time_ns() // 10**6
    log.add(
        "position",
        *(position("P", s) for s in "CAB"),
        position("P", "B", "close"),
        *(position("P ", s) for s in "XY"),  # a name that begins with the other one
        position("PP", "Z"),
        *(position("FLAT", s, ts=now + n) for n, s in enumerate("AB")),
        position("FLAT", "B", "close", ts=now + 2),
        position("FLAT", "A", "close", ts=now + 3),
        position("AGAIN", "A", ts=now),
        position("AGAIN", "A", "close", ts=now + 1),
        position("RESET", "A", ts=now),
        position("RESET", "A", "reset", ts=now + 1),
    )
    log.add("position", position("AGAIN", "A", ts=now + 2))
    portfolios = ["P", "P ", "PP", "FLAT", "AGAIN", "RESET", "NOBODY", ""]
    sets = [MemberSet("position", name) for name in portfolios]
    groups = [Group("position", (name,)) for name in portfolios]
    warm = WarmStore(redis_database)
    store = ColdStore(postgres_database, reads=PostgresReads(postgres_database, seconds=20))
    try:
        members = await store.members(sets, 7)
        assert members == await warm.members(sets, 7)
        assert members[0] == [("P", "A"), ("P", "C")]
        closed, of_warm = await store.last_closed(groups), await warm.last_closed(groups)
        again = portfolios.index("AGAIN")
        assert of_warm[again] == ("AGAIN", "A")
        assert of_warm[again] in members[again]  # type: ignore[operator]
        of_warm[again] = None  # it is a member again, and nothing depends on it
        assert closed == of_warm
        assert closed[portfolios.index("FLAT")] == ("FLAT", "A")
        total = sum(len(one) for one in members if isinstance(one, list))
        assert total > 5
        for most in (total - 1, 0):
            said = rf"there are {total} members to add up, 2 of them in P"
            with pytest.raises(TooLarge, match=said):
                await store.members(sets, most)
    finally:
        await warm.close()
        await store.close()


@in_a_loop
async def test_500_entities_are_one_statement_by_an_index(
    log: Log, postgres_database: str, engine: Engine
) -> None:
    """However many requests ask at once, whatever tables there are: none is read whole."""
    attach_ahead(engine, datetime.now(UTC))
    now = time.time_ns() // 10**6
    symbols = [f"E{number}" for number in range(500)]
    log.add("price", *({"symbol": s, "price": 1, "ts": now - 100 * DAY_MS} for s in symbols))
    for _ in range(8):
        log.add("price", *({"symbol": s, "price": 1} for s in symbols))
    query(postgres_database, "SELECT pg_stat_force_next_flush()")
    statements: list[str] = []

    class Watched(PostgresReads):
        async def query(self, statement: str, parameters: Any) -> list[Any]:
            statements.append(statement)
            plan = await super().query(f"EXPLAIN {statement}", parameters)
            found = "\n".join(line for (line,) in plan)
            assert "Seq Scan on feature_rows" not in found, found
            assert "Seq Scan on entities" not in found, found
            return await super().query(statement, parameters)

    store = ColdStore(postgres_database, reads=Watched(postgres_database, seconds=20))
    try:
        wanted = [
            [RowId("price", (s,)) for s in symbols[n:] + symbols[:n]] for n in range(0, 500, 15)
        ]
        async with asyncio.timeout(30):
            found = await asyncio.gather(*map(store.rows, wanted))
        assert all(isinstance(row, bytes) for one in found for row in one.rows)
        assert statements == [cold.NEWEST_ROWS] * len(statements)
        assert len(statements) <= 2 * len(wanted) * 500 / cold.ROWS[1]
        statements.clear()
        await store.rows(wanted[0])
        assert len(statements) == 1
        await store.members([MemberSet("position", "P")], 5)
    finally:
        await store.close()


@in_a_loop
async def test_a_postgres_that_says_nothing_is_waited_for_no_longer_than_the_limit(
    log: Log, postgres_database: str
) -> None:
    """Its threads are free again, with connections that are there and while it is connected to."""
    log.add("price", {"symbol": "A", "price": 1})
    with network(postgres_database) as between:
        store = ColdStore(between.url, reads=PostgresReads(between.url, seconds=0.5))
        wanted = [RowId("price", ("A",))]
        try:
            (row,) = (await store.rows(wanted)).rows
            assert isinstance(row, bytes)
            between.hold()
            begun = time.monotonic()
            assert (await store.rows(wanted)).rows == [UNAVAILABLE]
            assert time.monotonic() - begun < 2
            assert store.breaker.is_open
            begun = time.monotonic()
            for _ in range(1_000):
                assert (await store.rows(wanted)).rows == [UNAVAILABLE]
            assert time.monotonic() - begun < 1
            for _ in range(6):  # more than there are threads
                assert not await store.answers()
            between.heal()
            async with asyncio.timeout(20):
                while not await store.answers():
                    await asyncio.sleep(0.05)
        finally:
            await store.close()


@in_a_loop
async def test_connections_that_were_lost_are_made_again_and_nobody_notices(
    log: Log, postgres_database: str
) -> None:
    log.add("price", {"symbol": "A", "price": 1})
    store = ColdStore(postgres_database, reads=PostgresReads(postgres_database, seconds=20))
    wanted = [RowId("price", ("A",))]
    try:
        before = await store.rows(wanted)
        for _ in range(3):
            query(
                postgres_database,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()",
            )
            assert await store.rows(wanted) == before
        assert not store.breaker.is_open
    finally:
        await store.close()


@in_a_loop
async def test_what_waits_is_bounded_and_who_has_gone_is_not_read_for(
    log: Log, postgres_database: str
) -> None:
    log.add("price", {"symbol": "A", "price": 1})
    many = [RowId("price", (f"X{n}",)) for n in range(cold.ROWS[1])]
    read: list[int] = []

    class Watched(PostgresReads):
        async def query(self, statement: str, parameters: Any) -> list[Any]:
            read.append(len(parameters["entities"]))
            return await super().query(statement, parameters)

    store = ColdStore(postgres_database, reads=Watched(postgres_database, seconds=20))
    try:
        requests = cold.ROWS[2] // cold.ROWS[1]
        waiting = [asyncio.create_task(store.rows(many)) for _ in range(requests)]
        await asyncio.sleep(0)
        assert (await store.rows(many)).rows == [UNAVAILABLE] * len(many)
        for task in waiting[2:]:
            task.cancel()
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(one).__name__ for one in found[:2]] == ["TieredRows"] * 2
        assert sum(read) <= 4 * cold.ROWS[1]  # of the first two, each in late and in early months
        assert (await store.rows([RowId("price", ("A",))])).rows != [UNAVAILABLE]
    finally:
        await store.close()
