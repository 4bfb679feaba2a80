"""A pipeline for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.pipeline import Pipeline, pipeline


@pytest.fixture
def running(
    tmp_path: Path, kafka: str, redis_database: str, hot_redis: str, postgres_database: str
) -> Iterator[Pipeline]:
    """Topics, tables and an empty Redis; the test starts the workers."""
    with pipeline(tmp_path, kafka, redis_database, hot_redis, postgres_database) as made:
        yield made
