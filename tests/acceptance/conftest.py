"""A pipeline for each test."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.pipeline import Pipeline, pipeline
from tickwell.embedded.postgres import postgres
from tickwell.embedded.valkey import valkey
from tickwell.up.process import Process, Spec


@pytest.fixture
def running(
    tmp_path: Path, kafka: str, redis_database: str, hot_redis: str, postgres_database: str
) -> Iterator[Pipeline]:
    """Topics, tables and an empty Redis; the test starts the workers."""
    with pipeline(tmp_path, kafka, redis_database, hot_redis, postgres_database) as made:
        yield made


@pytest.fixture
def services(data: Path) -> Iterator[dict[str, tuple[Process, str]]]:
    """Stores of the test's own, which it may kill."""
    directory = data / uuid.uuid4().hex
    made: dict[str, Callable[[], tuple[Spec, str]]] = {
        "postgres": lambda: postgres(directory / "postgres"),
        "redis": lambda: valkey(directory / "redis", "warm"),
    }
    with ExitStack() as stack:
        found = {}
        for name, make in made.items():
            spec, url = make()
            process = Process(spec)
            process.start()
            stack.callback(process.stop)
            process.wait_ready()
            found[name] = (process, url)
        yield found
