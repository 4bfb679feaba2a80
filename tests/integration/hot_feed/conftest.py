"""A worker that feeds hot, and a server that reads it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import pytest
import redis

from pipelines.stores.redis.hot_redis import FEW_ENTITIES
from tests.support.feeds import FeedingWorker, run_at
from tests.support.hot import Reader
from tests.support.logs import TOPIC_ID
from tests.support.sinks import Opened


@pytest.fixture
def warm(redis_database: str) -> Iterator[Any]:
    with redis.Redis.from_url(redis_database) as client:
        yield client


@pytest.fixture
def hot(hot_redis: str) -> Iterator[Any]:
    with redis.Redis.from_url(hot_redis) as client:
        client.flushall()
        yield client


@pytest.fixture(params=[0, FEW_ENTITIES], ids=["as of many rows", "as of few rows"])
def make(
    request: pytest.FixtureRequest, opened: Opened, redis_database: str, hot_redis: str, hot: Any
) -> Any:
    """Makes workers."""

    def one(clock: Callable[[], float] = monotonic) -> FeedingWorker:
        return FeedingWorker(opened, redis_database, hot_redis, clock=clock, few=request.param)

    return one


@pytest.fixture
def fed(make: Any) -> FeedingWorker:
    """A worker that has stored and fed one run, and whose mark lives."""
    made: FeedingWorker = make().take()
    made.store(run_at(0))
    made.feed.turn()
    return made


@pytest.fixture
def reader(hot: Any, warm: Any) -> Reader:
    return Reader(hot, warm, TOPIC_ID)
