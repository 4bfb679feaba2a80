"""What tests of one part and its store share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import Engine
from starlette.testclient import TestClient

from pipelines.rebuild import snapshot
from pipelines.stores.redis import online_sink as online
from registry.database.engine import connect
from registry.definitions import Catalog
from registry.features_file import read
from registry.lifecycle.recording import record
from serving.app import ServerOptions, create_app
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
def database(postgres_database: str, engine: Engine) -> str:
    """A database that knows the shipped features."""
    record(engine, read(), "test")
    return postgres_database


@pytest.fixture
def opened() -> Iterator[Opened]:
    """Closes the sinks that a test opens."""
    with closing() as keep:
        yield keep


@pytest.fixture
def in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis is written as by a batch of too many entities for one call, if it has two or more."""
    monkeypatch.setattr(online, "ENTITIES_A_CALL", 1)


@pytest.fixture(params=["at once", "in steps"])
def either_way(request: pytest.FixtureRequest) -> None:
    """A batch goes to Redis in one call, or in steps."""
    if request.param == "in steps":
        request.getfixturevalue("in_steps")


@pytest.fixture
def running(tmp_path: Path, kafka: str, postgres_database: str) -> Iterator[Pipeline]:
    """Topics of two partitions, and tables; a replay needs no Redis."""
    with pipeline(tmp_path, kafka, "", "", postgres_database, partitions=2) as made:
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
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "ENTITIES_A_PIECE", 2)
