"""What tests of one part and its store share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from pipelines import online
from registry import catalog
from registry.database import connect
from registry.features_file import read
from tests.integration.sinks import Opened, closing


@pytest.fixture
def engine(postgres_database: str) -> Iterator[Engine]:
    """An engine on a migrated, empty database."""
    made = connect(postgres_database)
    yield made
    made.dispose()


@pytest.fixture
def database(postgres_database: str, engine: Engine) -> str:
    """A database that knows the shipped features."""
    catalog.record(engine, read(), "test")
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
