"""Positions that are closed, in both stores, through restarts and a rebuild."""

from __future__ import annotations

import redis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pipelines.kafka.run import Run
from pipelines.kafka.topics import Topic
from pipelines.live.materializer import Materializer
from pipelines.stores.postgres.offline_sink import OfflineSink
from pipelines.stores.redis.online_sink import OnlineSink
from registry.formats.redis_keys import row_key
from registry.formats.row import ValueStatus, unpack
from registry.language.program import compile_program
from registry.source_rules import SourceRules
from tests.oracle.features import expect
from tests.oracle.messages import Record
from tests.support.logs import POSITION, POSITION_FEATURES, TOPIC_ID, position_logs, runs
from tests.support.rebuilds import Stores, quiet
from tests.support.sinks import GO_ON, closing, empty, postgres_dump, query

TOPIC = Topic("ticks.position", TOPIC_ID, 1)


def materialize(stores: Stores, *log: Run) -> None:
    """What a new worker of each store makes of the log."""
    rules = SourceRules.of(stores.catalog, "position")
    schema = stores.catalog.schemas[stores.catalog.writing["position"]]
    program = compile_program(stores.catalog, schema)
    with closing() as opened:
        for sink in (opened(OnlineSink(stores.redis_url)), opened(OfflineSink(stores.postgres))):
            worker = Materializer(rules, schema, program, sink, 1000)
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
    for run in rest:
        materialize(stores, run)
    assert (stores.rows(), postgres_dump(stores.postgres)) == (rows, stored)
    assert_statuses(stores, records)


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
            packed = client.get(row_key("position", "\x1f".join(entity)))
            assert unpack(packed).status == statuses[rows[-1].origin[1:]]
