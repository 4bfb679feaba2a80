"""A feed that changes: real workers before and after, and everything computed again."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.changed_rules import OTHER, declare, messages, of_other_rules
from tests.support.checks import assert_no_difference
from tests.support.pipeline import Pipeline
from tests.support.replays import execute
from tests.support.stored import all_rows

BOTH = ("online", "offline")


def rows_in_redis(running: Pipeline) -> dict[bytes, Any]:
    with running.redis() as client:
        return all_rows(client, "price")


def rejected(running: Pipeline) -> list[Any]:
    return running.query(
        'SELECT topic_id, partition, "offset", index, reason, detail, value'
        " FROM tickwell.rejected_ticks ORDER BY 1, 2, 3, 4"
    )


@pytest.mark.long
@pytest.mark.timeout(300)
def test_what_was_decided_stays_when_the_rules_change(running: Pipeline) -> None:
    for sink in BOTH:
        running.start_worker(sink)
    running.produce("price", messages(300, 1))
    running.wait_drained(*BOTH)
    declare(running, OTHER)
    assert "the rules of price cannot change while workers read them" in running.refused(
        "migrate", "--from-now"
    )
    running.stop()
    for command in (("migrate",), ("worker", "--sink", "offline")):
        line = running.refused(*command)
        assert "ts_unit `ms` would become `s`" in line
        assert "change the file back" in line
        assert "`tickwell migrate --from-now`" in line
    told = running.run_tickwell("migrate", "--from-now")
    ends = running.ends()
    topic = running.topics[running.topic("price")]
    for number in range(topic.partitions):
        assert f"[{number}] offset {ends.get((topic.topic_id, number), 0)}" in told

    running.produce("price", of_other_rules(300, 2))
    for sink in BOTH:
        running.start_worker(sink)
    running.wait_drained(*BOTH)
    looked = assert_no_difference(running).looked
    running.stop()
    assert 300 < looked["rows"] < 600
    rows, stored, dump = rows_in_redis(running), rejected(running), running.dump()

    with running.redis() as client:
        client.flushall()
    running.run_tickwell("rebuild-online")
    assert rows_in_redis(running) == rows
    assert_no_difference(running)
    execute(
        running,
        "TRUNCATE tickwell.feature_rows, tickwell.entities, tickwell.watermarks,"
        " tickwell.rejected_ticks",
    )
    running.run_tickwell("replay")
    assert (running.dump(), rejected(running)) == (dump, stored)
