"""Positions that are closed, in both stores, through restarts and a rebuild."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import redis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pipelines.compute.run_computation import RunComputation
from pipelines.kafka.run import Run
from pipelines.kafka.topics import Topic
from pipelines.live.materializer import Materializer
from pipelines.stores.postgres.offline_sink import OfflineSink
from pipelines.stores.redis.online_sink import OnlineSink
from registry.formats.last_close import LAST_CLOSE, closed_member
from registry.formats.redis_keys import closed_key, members_key
from registry.formats.row import ValueStatus, unpack
from registry.language.program import compile_program
from registry.source_rules import SourceRules
from serving.features.lookup import Names
from serving.features.reader import Reader
from serving.features.values import Moment
from serving.stores.warm import WarmStore
from tests.oracle.features import expect
from tests.oracle.messages import Record
from tests.support.logs import NOW_MS, POSITION, POSITION_FEATURES, TOPIC_ID, position_logs, runs
from tests.support.rebuilds import Stores, at_work, quiet
from tests.support.sinks import GO_ON, closing, empty, postgres_dump, query
from tests.support.stored import stored_row

TOPIC = Topic("ticks.position", TOPIC_ID, 1)


def materialize(stores: Stores, *log: Run) -> None:
    """What a new worker of each store makes of the log."""
    rules = SourceRules.of(stores.catalog, "position")
    schema = stores.catalog.schemas[stores.catalog.writing["position"]]
    program = compile_program(stores.catalog, schema)
    with closing() as opened:
        for sink in (opened(OnlineSink(stores.redis_url)), opened(OfflineSink(stores.postgres))):
            worker = Materializer(RunComputation(rules, schema, program, 1000), sink)
            for run in log:
                worker.materialize(run, GO_ON)


@settings(
    max_examples=10,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # to shrink a log takes minutes
)
@given(position_logs(), st.lists(st.integers(0, 40), min_size=1, max_size=4))
def test_a_close_survives_restarts_and_a_rebuild(
    stores: Stores, records: list[Record], cuts: list[int]
) -> None:
    """A new worker for each run, and Redis lost after the first: as if nothing had happened."""
    log = list(runs(records, cuts))
    empty(stores.redis_url, stores.postgres)
    materialize(stores, *log)
    rows, stored = stores.rows(), postgres_dump(stores.postgres)

    empty(stores.redis_url, stores.postgres)
    first, *rest = log
    materialize(stores, first)
    before = stores.rows()
    stores.flush()
    stores.rebuild().fill(stores.catalog.sources["position"], TOPIC, quiet)
    assert stores.rows() == before
    assert_members(stores, [one for one in records if one.offset < first.next_offset])
    for run in rest:
        materialize(stores, run)
    assert (stores.rows(), postgres_dump(stores.postgres)) == (rows, stored)
    assert_statuses(stores, records)
    assert_members(stores, records)


def assert_members(stores: Stores, records: list[Record]) -> None:
    """Those are members that are open; when something was closed last is remembered as well."""
    rows = expect(records, POSITION, POSITION_FEATURES).rows
    newest = {symbol: every[-1] for (_, symbol), every in rows.items()}
    closed = {s: row.event_time for s, row in newest.items() if row.values[0].status == "closed"}
    with redis.Redis.from_url(stores.redis_url) as client:
        found = {name.decode() for name in client.smembers(members_key("position", "P"))}
        last = client.get(closed_key("position", "P"))
    assert found == newest.keys() - closed.keys()
    if closed:
        (time,) = LAST_CLOSE.struct.unpack_from(last)
        assert time >= max(closed.values())
        assert found or closed[closed_member(last)] == time == max(closed.values())


def runs_of(*ticks: tuple[str, str, int], cut: int = 0) -> list[Run]:
    """The ticks of P, each as (symbol, op, ms), as one run or cut before the place `cut`."""
    values = [
        {"portfolio": "P", "symbol": symbol, "op": op, "quantity": 2, "ts": NOW_MS + ms}
        for symbol, op, ms in ticks
    ]
    records = [
        Record("ticks.position", 0, offset, NOW_MS, b"P", json.dumps(value).encode())
        for offset, value in enumerate(values)
    ]
    return list(runs(records, [cut] if cut else []))


def exposure(stores: Stores) -> tuple[float | None, str, str | None]:
    """What is served of P, whose prices are not known."""

    async def answer() -> Any:
        store = WarmStore(stores.redis_url)
        try:
            moment = Moment(NOW_MS * 10**6, lambda source, tier: False)
            names, name = Names(stores.catalog), "portfolio_exposure"
            (found,) = await Reader(store).answer(
                names, [name], [{"portfolio": "P"}], lambda: moment
            )
            return found.features[name]
        finally:
            await store.close()

    value = asyncio.run(answer())
    return value.value, value.status, value.event_time


CLOSED_AT = "2023-11-14T22:13:20.004000000Z"


def test_closed_members_are_read_and_taken_out(stores: Stores) -> None:
    """Every position that ever was is among the members, and no last close is known."""
    empty(stores.redis_url, stores.postgres)
    trades = [("A", "trade", 0), ("B", "trade", 1), ("C", "trade", 2)]
    materialize(stores, *runs_of(*trades, ("B", "close", 4), ("A", "close", 3), ("C", "close", 2)))
    assert exposure(stores) == (0.0, "ok", CLOSED_AT)
    members, closed = members_key("position", "P"), closed_key("position", "P")
    with redis.Redis.from_url(stores.redis_url) as client:
        last = client.get(closed)
        assert not client.exists(members)
        client.delete(closed)
        client.sadd(members, "A", "B", "C")
        assert exposure(stores) == (0.0, "ok", CLOSED_AT)
        stores.rebuild().refill(stores.catalog.sources["position"], TOPIC, quiet)
        assert (client.exists(members), client.get(closed)) == (0, last)
    assert exposure(stores) == (0.0, "ok", CLOSED_AT)


def test_a_position_is_closed_while_a_rebuild_has_it_open(stores: Stores) -> None:
    """And another opened again: what a worker stores meanwhile decides who is a member."""
    empty(stores.redis_url, stores.postgres)
    before = [("A", "trade", 0), ("B", "trade", 1), ("B", "close", 2)]
    first, second = runs_of(*before, ("A", "close", 4), ("B", "trade", 3), cut=len(before))
    materialize(stores, first)
    work = at_work(lambda: materialize(stores, second))
    stores.rebuild().refill(stores.catalog.sources["position"], TOPIC, work)
    with redis.Redis.from_url(stores.redis_url) as client:
        assert client.smembers(members_key("position", "P")) == {b"B"}
        assert closed_member(client.get(closed_key("position", "P"))) == "A"


def assert_statuses(stores: Stores, records: list[Record]) -> None:
    """Every row has the statuses that the oracle says, in Postgres and, the newest, in Redis.

    In the view only trades have values.
    """
    found = query(stores.postgres, 'SELECT "offset", index, status FROM tickwell.feature_rows')
    wanted = expect(records, POSITION, POSITION_FEATURES).rows
    names = {status.name.lower(): status.value for status in ValueStatus}
    statuses = {
        row.origin[1:]: bytes(names[value.status] for value in row.values)
        for rows in wanted.values()
        for row in rows
    }
    assert {(offset, index): bytes(status) for offset, index, status in found} == statuses
    bare = "SELECT count(*) FROM features.position WHERE coalesce(quantity, position_size) IS NULL"
    without = sum(row.op != "trade" for rows in wanted.values() for row in rows)
    assert query(stores.postgres, bare) == [(without,)]
    with redis.Redis.from_url(stores.redis_url) as client:
        for entity, rows in wanted.items():
            packed = stored_row(client, "position", "\x1f".join(entity))
            assert unpack(packed).status == statuses[rows[-1].origin[1:]]
