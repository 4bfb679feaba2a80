"""Rules of a source after an upgrade: what an earlier build has stored, it has decided."""

from __future__ import annotations

import pytest
import redis

from pipelines.errors import (
    RangeMistaken,
    StoresApart,
)
from pipelines.replay.ranges import Wanted
from registry.errors import RulesOfEarlierBuild
from registry.formats.redis_keys import FILLED_MARK, filled_key
from tests.support.changed_rules import (
    declare,
    from_now,
    messages,
    stored,
)
from tests.support.pipeline import Pipeline
from tests.support.replays import (
    execute,
    live,
    offline_sink,
    online_sink,
    ranges_of,
    replay,
)
from tickwell.migrate import migrate

BOTH = (offline_sink, online_sink)


def be_of_an_earlier_build(running: Pipeline) -> None:
    for table in ("tickwell.sources", "tickwell.source_rules"):
        execute(
            running,
            f"UPDATE {table} SET definition = definition - 'partitioner' - 'earliest_ns'",
        )


def test_a_database_of_an_earlier_build_goes_on_from_what_it_has(both: Pipeline) -> None:
    both.produce("price", messages(60, 1))
    live(both)
    be_of_an_earlier_build(both)
    with pytest.raises(RulesOfEarlierBuild, match=r"which `partitioner`.* --from-now`"):
        migrate(both.settings)
    with pytest.raises(RulesOfEarlierBuild):
        ranges_of(both, Wanted(partition=0))
    live_online_as_before(both, 20)
    with pytest.raises(StoresApart, match="only the earlier build knows"):
        from_now(both)
    topic_id = both.topics[both.topic("price")].topic_id
    with redis.Redis.from_url(both.settings.redis) as client:
        client.flushall()
        client.set(filled_key(topic_id, 0), FILLED_MARK)  # a worker would read from the beginning
        with pytest.raises(StoresApart, match=r"\[0\] is stored up to offset 0 in Redis"):
            from_now(both)
        client.flushall()  # it is filled from Postgres
    changes = {change.now.name: change for change in from_now(both)}
    begins = [start.offset for start in changes["price"].starts]
    assert begins == [offline for offline, _ in stored(both)]
    assert set(changes) == {"price", "volume", "position"}
    assert migrate(both.settings).rules["price"][-1].of_earlier_build is False

    both.produce("price", messages(60, 2))
    live(both)
    said = rf"\[1\] before offset {begins[1]} was decided by an earlier build"
    with pytest.raises(RulesOfEarlierBuild, match=said):
        ranges_of(both, Wanted(partition=1, from_offset=begins[1] - 1))
    with pytest.raises(RulesOfEarlierBuild, match=said):
        ranges_of(both, Wanted(partition=1, to_offset=begins[1]))
    assert [part.begin for part in ranges_of(both, Wanted(to_offset=max(begins) + 1))] == begins
    declare(both, 'message_key = "any"')
    from_now(both)
    with pytest.raises(RangeMistaken, match="--entity finds messages by their keys"):
        ranges_of(both, Wanted(entities=("S1",)))
    assert [part.begin for part in ranges_of(both)] == begins
    done = replay(both)
    assert (done.new_rows, done.rows > 0) == (0, True)


def live_online_as_before(running: Pipeline, offset: int) -> None:
    """Redis is where a worker of the earlier build has left it."""
    topic_id = running.topics[running.topic("price")].topic_id.hex()
    with redis.Redis.from_url(running.settings.redis) as client:
        client.set(f"tw:3:watermark:{topic_id}:0", offset)


def test_an_earlier_build_that_replayed_more_than_it_read(both: Pipeline) -> None:
    """A worker would come to offsets that nobody can decide any more."""
    both.produce("price", messages(60, 1))
    for sink in BOTH:
        live(both, Wanted(cold=True, to_offset=20), sink)
    replay(both)
    be_of_an_earlier_build(both)
    with pytest.raises(StoresApart, match=r"a replay of the earlier build has stored up to \d\d"):
        from_now(both)
