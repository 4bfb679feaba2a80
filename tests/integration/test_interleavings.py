"""Three workers of one Redis that do anything at any moment, and a Redis that forgets."""

from __future__ import annotations

from collections import Counter

import pytest
import redis

from tests.support.interleaved import FIRST, Interleaved, run_of, stored
from tests.support.sinks import GO_ON, Opened, worker
from tests.support.writers import in_parts

pytestmark = pytest.mark.timeout(120)


def test_whatever_workers_do_and_whatever_goes_wrong(opened: Opened, redis_database: str) -> None:
    """Rows are those of one worker, to the bit, and states have the same ticks."""
    happened: Counter[str] = Counter()
    for seed in range(4):
        world = Interleaved(redis_database, seed)
        for _ in range(100):
            world.step()
        world.finish()
        world.close()
        happened.update(world.happened)
        found = stored(redis_database)
        with redis.Redis.from_url(redis_database) as client:
            client.flushall()
        world.begin_homes()
        alone = worker(in_parts(opened, redis_database))
        for partition, records in enumerate(world.log):
            alone.materialize(run_of(world.log, partition, FIRST, len(records)), GO_ON)
        assert stored(redis_database) == found, f"seed {seed}"
    assert len(happened) == 7, happened
