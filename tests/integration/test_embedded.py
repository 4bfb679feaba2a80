"""The embedded services after a crash in the middle of making them, and the odd directory."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import psutil
import psycopg2
import pytest
import redis

from tests.support.services import embedded
from tickwell.embedded.allocator import FAST, allocator_of, preloaded
from tickwell.embedded.broker import broker
from tickwell.embedded.postgres import postgres
from tickwell.embedded.valkey import valkey
from tickwell.errors import TickwellError
from tickwell.up.process import Spec


def test_a_half_made_postgres_is_made_again(data: Path) -> None:
    directory = data / "half-made"
    (directory / "cluster.unfinished").mkdir(parents=True)
    (directory / "cluster").mkdir()
    (directory / "password").touch()
    with embedded(lambda: postgres(directory)) as url:
        psycopg2.connect(url).close()
        wrong = url.replace("postgres:", "postgres:not", 1)
        with pytest.raises(psycopg2.OperationalError, match="password"):
            psycopg2.connect(wrong)
    assert (directory / "password").stat().st_mode & 0o077 == 0


def test_kafka_says_which_directory_it_cannot_have(tmp_path: Path) -> None:
    with pytest.raises(TickwellError, match="a comma separates directories"):
        broker(tmp_path / "a,b", "kafka")


def started_valkey(
    place: Path, change: Callable[[Spec], Spec] = lambda spec: spec
) -> tuple[str, str]:
    """(Where its memory is from, what it answers) of a Valkey that stores a value."""

    def made() -> tuple[Spec, str]:
        spec, url = valkey(place, "warm")
        return change(spec), url

    with ExitStack() as stack:
        url = stack.enter_context(embedded(made))
        client = stack.enter_context(redis.Redis.from_url(url))
        client.set("name", b"x" * 10**6)
        return allocator_of(client.info("server")["process_id"]), client.get("name").decode()


def test_valkey_has_its_memory_from_the_systems_fast_allocator(tmp_path: Path) -> None:
    allocator, value = started_valkey(tmp_path / "valkey")
    assert value == "x" * 10**6
    assert (allocator in FAST) == bool(preloaded())


def test_valkey_works_without_one(tmp_path: Path) -> None:
    assert preloaded(lambda name: None) == {}
    allocator, value = started_valkey(tmp_path / "valkey", lambda spec: replace(spec, env={}))
    assert (allocator, value) == ("libc", "x" * 10**6)


def test_valkey_works_with_one_that_cannot_be_loaded(tmp_path: Path) -> None:
    broken = tmp_path / "libjemalloc.so.2"
    broken.write_bytes(b"of another processor")
    env = preloaded(lambda name: str(broken))
    allocator, value = started_valkey(tmp_path / "valkey", lambda spec: replace(spec, env=env))
    assert (allocator, value) == ("libc", "x" * 10**6)


def test_whose_allocator_is_not_known_is_said() -> None:
    with pytest.raises(psutil.NoSuchProcess):
        allocator_of(2**22 + 1)
