"""What Redis knows of a portfolio: the positions that a sum over it reads."""

from __future__ import annotations

import json

import redis
from msgspec import structs

from pipelines.live.materializer import Materializer
from pipelines.stores.redis.online_sink import OnlineSink
from registry.definitions import RowSchema
from registry.formats.redis_keys import members_key
from registry.language.program import compile_program
from registry.source_rules import SourceRules
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
    positions = Materializer(SourceRules.always(POSITION), SCHEMA, program, sink, 1000)
    for run in runs(log, (3, 5)):
        positions.materialize(run, GO_ON)
    with redis.Redis.from_url(redis_database) as client:
        members = {name: client.smembers(members_key("position", name)) for name in ("P1", "P2")}
    assert members == {"P1": {b"A", b"B", b"C"}, "P2": {b"A", b"D"}}
