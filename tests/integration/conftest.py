"""What tests of one part and its store share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis
from sqlalchemy import Engine
from starlette.testclient import TestClient

from pipelines.rebuild.rebuild import RebuildLimits
from pipelines.stores.redis.connection import ENTITIES_A_CALL
from registry.database.engine import connect
from registry.definitions import Catalog
from registry.features_file import read
from registry.lifecycle.audit import By
from registry.lifecycle.recording import record
from registry.lifecycle.registry import Registry
from serving.app import ServerOptions, create_app
from tests.support.both_tiers import BothTiers
from tests.support.pipeline import Pipeline, pipeline
from tests.support.rebuilds import Stores
from tests.support.served import beat
from tests.support.sinks import Opened, closing


@pytest.fixture
def engine(postgres_database: str) -> Iterator[Engine]:
    """An engine on a migrated, empty database."""
    made = connect(postgres_database)
    yield made
    made.dispose()


@pytest.fixture
def registry(engine: Engine) -> Registry:
    """A registry of the shipped features."""
    record(engine, read(), "ann")
    return Registry(engine, By("bob", "request-7"))


@pytest.fixture
def database(postgres_database: str, engine: Engine) -> str:
    """A database that knows the shipped features."""
    record(engine, read(), "test")
    return postgres_database


@pytest.fixture
def opened() -> Iterator[Opened]:
    """Closes the sinks that a test opens."""
    with closing() as keep:
        yield keep


@pytest.fixture(params=[ENTITIES_A_CALL, 1], ids=["at once", "in steps"])
def entities_a_call(request: pytest.FixtureRequest) -> int:
    """A batch goes to Redis in one call, or in steps: as one of too many entities for one call."""
    return int(request.param)


@pytest.fixture
def either_way(stores: Stores, entities_a_call: int) -> None:
    """Batches go to the Redis of `stores` in one call, or in steps."""
    stores.entities_a_call = entities_a_call


@pytest.fixture
def in_steps(stores: Stores) -> None:
    """Batches go to the Redis of `stores` in steps."""
    stores.entities_a_call = 1


@pytest.fixture
def running(tmp_path: Path, kafka: str, postgres_database: str) -> Iterator[Pipeline]:
    """Topics of two partitions, and tables; a replay needs no Redis."""
    with pipeline(tmp_path, kafka, "", "", postgres_database, partitions=2) as made:
        yield made


@pytest.fixture
def both(
    tmp_path: Path, kafka: str, redis_database: str, postgres_database: str
) -> Iterator[Pipeline]:
    """Topics of two partitions, tables and a Redis."""
    with pipeline(tmp_path, kafka, redis_database, "", postgres_database, partitions=2) as made:
        yield made


@pytest.fixture
def recorded(postgres_database: str) -> Catalog:
    engine = connect(postgres_database)
    try:
        return record(engine, read(), "test")
    finally:
        engine.dispose()


@pytest.fixture
def client(
    recorded: Catalog, redis_database: str, hot_redis: str, postgres_database: str
) -> Iterator[TestClient]:
    beat(redis_database)
    options = ServerOptions(redis_database, hot_redis, postgres_database)
    with TestClient(create_app(options), raise_server_exceptions=False) as made:
        yield made


@pytest.fixture
def stores(redis_database: str, postgres_database: str) -> Iterator[Stores]:
    with ExitStack() as stack:
        yield Stores(redis_database, postgres_database, stack)


@pytest.fixture
def small_pieces(stores: Stores) -> None:
    """Rebuilds fetch two entities at once."""
    stores.limits = RebuildLimits(entities_a_piece=2)


@pytest.fixture
def tiers(redis_database: str, hot_redis: str) -> Iterator[BothTiers]:
    with redis.Redis.from_url(redis_database) as warm, redis.Redis.from_url(hot_redis) as hot:
        hot.flushall()
        yield BothTiers(redis_database, hot_redis, warm, hot)
