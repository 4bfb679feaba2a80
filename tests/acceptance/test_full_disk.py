"""A disk that is full under a store: its worker waits, says so, and nothing is lost."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from registry.database import migrations
from registry.database.engine import connect
from tests.support.checks import assert_no_difference
from tests.support.load import burst
from tests.support.pipeline import pipeline, wait_for
from tests.support.stored import stored_row
from tickwell.embedded.postgres import postgres
from tickwell.embedded.valkey import valkey
from tickwell.up.process import Process

DISK = "200m"
"""A new cluster takes a third of it."""

ROUNDS = 12
"""Of 300 ticks, each of which needs some hundred kilobytes of rows and log."""


@pytest.fixture
def small_disk(data: Path) -> Iterator[Path]:
    """A file system of its own."""
    directory = data / "small-disk"
    directory.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", directory]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    is_expected = os.geteuid() == 0 and os.environ.get("CI") == "true"
    if mounted.returncode != 0 and not is_expected:
        pytest.skip(f"nothing can be mounted here: {mounted.stderr.strip()}")
    assert mounted.returncode == 0, mounted.stderr
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True)


@pytest.mark.timeout(300)
def test_a_full_disk_under_postgres(
    small_disk: Path, tmp_path: Path, kafka: str, redis_database: str, hot_redis: str
) -> None:
    spec, url = postgres(small_disk / "postgres")
    server = Process(spec)
    server.start()
    server.wait_ready()
    try:
        engine = connect(url)
        migrations.upgrade(engine)
        engine.dispose()
        with pipeline(tmp_path, kafka, redis_database, hot_redis, url) as running:
            for sink in ("online", "offline"):
                running.start_worker(sink)
            running.produce("price", burst(0))
            running.wait_drained("online", "offline")
            ballast = small_disk / "ballast"
            with ballast.open("wb") as file:
                file.write(bytes(shutil.disk_usage(small_disk).free - 100_000))
            for number in range(1, ROUNDS):
                running.produce("price", burst(number))
            running.wait_drained("online")
            log = running.logs / "offline-one.log"
            wait_for(
                "the refusal is logged", lambda: "offline store is unavailable" in log.read_text()
            )
            assert running.processes["offline-one"].poll() is None
            ballast.unlink()
            if server.exit_code() is not None:  # without room for its log it ends
                server.start()
                server.wait_ready()
            running.wait_drained("offline")
            assert_no_difference(running)
    finally:
        server.stop()


@pytest.mark.timeout(120)
def test_a_full_disk_under_the_warm_redis(
    small_disk: Path, tmp_path: Path, kafka: str, hot_redis: str, postgres_database: str
) -> None:
    """It cannot write its append-only file and takes no writes; what it has it serves."""
    spec, url = valkey(small_disk / "redis", "warm")
    server = Process(spec)
    server.start()
    server.wait_ready()
    try:
        with pipeline(tmp_path, kafka, url, hot_redis, postgres_database) as running:
            for sink in ("online", "offline"):
                running.start_worker(sink)
            running.produce("price", burst(0))
            running.wait_drained("online", "offline")
            ballast = small_disk / "ballast"
            with suppress(OSError), ballast.open("wb", buffering=0) as file:
                while True:  # until there is no room: Redis writes meanwhile
                    file.write(bytes(2**20))
            for number in range(1, ROUNDS):
                running.produce("price", burst(number))
            log = running.logs / "online-one.log"
            refusal = "online store is unavailable, waiting: Redis: MISCONF"
            wait_for("the refusal is logged", lambda: refusal in log.read_text())
            running.wait_drained("offline")
            assert running.processes["online-one"].poll() is None
            with running.redis() as client:
                assert stored_row(client, "price", "S0") is not None
            ballast.unlink()
            running.wait_drained("online")
            assert_no_difference(running)
    finally:
        server.stop()
