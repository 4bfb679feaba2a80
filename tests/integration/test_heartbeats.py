"""Heartbeats of a worker while a Redis does not answer."""

from __future__ import annotations

from threading import Thread

import redis

from pipelines.live.heartbeats import Heartbeats
from registry.heartbeats import read_heartbeats
from tests.support.network import network
from tests.support.pipeline import wait_for
from tests.support.sinks import Opened


def test_a_redis_that_hangs_is_told_last(
    opened: Opened, redis_database: str, hot_redis: str
) -> None:
    """So that what the other one knows of a worker is no older for it."""
    with network(redis_database) as warm, redis.Redis.from_url(hot_redis) as hot:
        hot.flushall()
        heartbeats = opened(Heartbeats("online", "one", [warm.url, hot_redis]))
        warm.hold()
        first = heartbeats.beat(None, [])
        beating = Thread(target=heartbeats.beat, args=(None, []))
        beating.start()
        wait_for("the next one", lambda: [b.at for b in read_heartbeats(hot)] > [first.at])
        assert beating.is_alive()
        beating.join(30)
        warm.heal()
        last = heartbeats.beat(None, [])
        with redis.Redis.from_url(redis_database) as behind:
            assert [beat.at for beat in read_heartbeats(behind)] == [last.at]
