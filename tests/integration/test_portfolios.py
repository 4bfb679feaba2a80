"""What Redis knows of a portfolio: the positions that a sum over it reads."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from threading import Event
from typing import Any

import pytest
import redis
from msgspec import structs

from pipelines.compute.run_computation import RunComputation
from pipelines.errors import Stopped
from pipelines.live.materializer import Materializer
from pipelines.stores.redis.online_sink import OnlineSink
from registry.definitions import RowSchema, Source
from registry.formats.last_close import closed_member
from registry.formats.redis_keys import closed_key, members_key
from registry.language.program import compile_program
from registry.source_rules import SourceRules
from serving.stores.row_store import Group, MemberSet
from serving.stores.warm import WarmStore
from tests.oracle.messages import Record
from tests.support.logs import NOW_MS, runs
from tests.support.shipped import CATALOG, definitions
from tests.support.sinks import GO_ON, Opened

(POSITION,) = (source for source in definitions.sources if source.name == "position")
SCHEMA = RowSchema(
    1, "position", tuple(f.ref for f in definitions.features if f.source == "position")
)


def test_each_position_joins_its_portfolio(
    opened: Opened, redis_database: str, entities_a_call: int
) -> None:
    held = [("P1", "A"), ("P2", "A"), ("P1", "B"), ("P1", "A"), ("P1", "C"), ("P2", "D")]
    log = [
        Record(
            "ticks.position",
            0,
            offset,
            NOW_MS,
            portfolio.encode(),
            json.dumps(
                {"portfolio": portfolio, "symbol": symbol, "quantity": 1, "ts": NOW_MS + offset}
            ).encode(),
        )
        for offset, (portfolio, symbol) in enumerate(held)
    ]
    sink = opened(OnlineSink(redis_database, entities_a_call=entities_a_call))
    catalog = structs.replace(CATALOG, sources={"position": POSITION})
    program = compile_program(catalog, SCHEMA)
    rules = SourceRules.always(POSITION)
    positions = Materializer(RunComputation(rules, SCHEMA, program, 1000), sink)
    for run in runs(log, (3, 5)):
        positions.materialize(run, GO_ON)
    with redis.Redis.from_url(redis_database) as client:
        members = {name: client.smembers(members_key("position", name)) for name in ("P1", "P2")}
    assert members == {"P1": {b"A", b"B", b"C"}, "P2": {b"A", b"D"}}


def written(
    opened: Opened,
    redis_database: str,
    source: Source,
    values: Sequence[Any],
    stop: Event = GO_ON,
) -> None:
    """Materialize these ticks of one message key, in one run."""
    log = [
        Record(source.topic, 0, offset, NOW_MS, b"P1", json.dumps(value).encode())
        for offset, value in enumerate(values)
    ]
    catalog = structs.replace(CATALOG, sources={"position": source})
    sink, program = opened(OnlineSink(redis_database)), compile_program(catalog, SCHEMA)
    (run,) = runs(log, ())
    rules = SourceRules.always(source)
    Materializer(RunComputation(rules, SCHEMA, program, 10_000), sink).materialize(run, stop)


def test_a_position_joins_although_redis_refused_it_before(
    opened: Opened, redis_database: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A user of an earlier version has fewer rights; they are added once the worker says so."""
    user = {"username": "of-earlier", "passwords": ["+secret"], "keys": ["tw:*"], "enabled": True}
    url = redis_database.replace("redis://", "redis://of-earlier:secret@")
    held = [{"portfolio": "P1", "symbol": "A", "quantity": 1, "ts": NOW_MS}]
    with redis.Redis.from_url(redis_database) as client:
        try:
            client.acl_setuser(**user, categories=["+@all"], commands=["-sadd"])
            once = Event()
            once.set()
            with pytest.raises(Stopped):
                written(opened, url, POSITION, held, once)
            assert "sadd" in caplog.text
            client.acl_setuser(**user, categories=["+@all"])
            written(opened, url, POSITION, held)
            assert client.smembers(members_key("position", "P1")) == {b"A"}
        finally:
            client.acl_deluser("of-earlier")


def test_only_open_positions_are_counted(opened: Opened, redis_database: str) -> None:
    """More are closed than a request may add up; one of them is opened again."""
    held = [f"S{number}" for number in range(50)]
    ticks = [
        {"portfolio": "P1", "symbol": symbol, "quantity": 1, "ts": NOW_MS + later, "op": op}
        for later, op in enumerate(("trade", "close"))
        for symbol in held
    ]
    ticks.append({"portfolio": "P1", "symbol": "S7", "quantity": 1, "ts": NOW_MS + 3})
    written(opened, redis_database, POSITION, ticks)

    async def read() -> tuple[Any, Any]:
        store = WarmStore(redis_database)
        try:
            groups = [Group("position", (portfolio,)) for portfolio in ("P1", "P2")]
            return (
                await store.members([MemberSet("position", "P1"), MemberSet("position", "P2")], 1),
                await store.last_closed(groups),
            )
        finally:
            await store.close()

    members, (closed, never) = asyncio.run(read())
    assert members == [[("P1", "S7")], []]
    assert closed in {("P1", symbol) for symbol in held}
    assert never is None


@pytest.mark.parametrize(("first", "second"), [("1", "0"), ("0", "1"), ("0", "0")])
def test_the_last_close_is_told_by_the_nanosecond(
    opened: Opened, redis_database: str, first: str, second: str
) -> None:
    """A double has not so many digits. Of two at once it may be either."""
    ticks = [
        {"portfolio": "P1", "symbol": symbol, "op": op, "quantity": 1}
        | {"ts": f"2023-11-14T22:13:20.00000000{digit}Z"}
        for op in ("trade", "close")
        for symbol, digit in (("A", first), ("B", second))
    ]
    written(opened, redis_database, POSITION, ticks)
    with redis.Redis.from_url(redis_database) as client:
        last = closed_member(client.get(closed_key("position", "P1")))
    assert last in {"A" if first >= second else "B", "A" if first > second else "B"}


def test_each_group_of_a_longer_key_has_a_last_close(opened: Opened, redis_database: str) -> None:
    deep = structs.replace(POSITION, key=("desk", "portfolio", "symbol"))
    ticks = [
        {"desk": "P1", "portfolio": portfolio, "symbol": symbol, "op": op, "quantity": 1}
        | {"ts": NOW_MS + later}
        for later, (op, portfolio, symbol) in enumerate(
            [
                *[("trade", "X", "A"), ("trade", "Y", "A"), ("trade", "Y", "B")],
                *[("close", "X", "A"), ("close", "Y", "A")],
            ]
        )
    ]
    written(opened, redis_database, deep, ticks)
    with redis.Redis.from_url(redis_database) as client:
        last = [
            closed_member(client.get(closed_key("position", group)))
            for group in ("P1", "P1\x1fX", "P1\x1fY")
        ]
        members = client.smembers(members_key("position", "P1"))
    assert last == ["Y\x1fA", "X\x1fA", "Y\x1fA"]
    assert members == {b"Y\x1fB"}
