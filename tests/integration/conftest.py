"""What tests of one part and its store share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from registry.database import connect


@pytest.fixture
def engine(postgres_database: str) -> Iterator[Engine]:
    """An engine on a migrated, empty database."""
    made = connect(postgres_database)
    yield made
    made.dispose()
