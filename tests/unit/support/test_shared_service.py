"""A service that several test processes use."""

from __future__ import annotations

import fcntl
import shutil
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import psutil

from tests.support.shared_service import STARTED, shared
from tickwell.up.process import Spec


def sleeping(log: Path, made: list[str]) -> Callable[[], tuple[Spec, str]]:
    """Makes a process that sleeps; each is noted."""

    def make() -> tuple[Spec, str]:
        made.append("address")
        sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
        return Spec("sleep", sleep, log), made[-1]

    return make


def test_the_first_one_starts_it_and_the_last_one_stops_it(tmp_path: Path) -> None:
    made: list[str] = []
    make = sleeping(tmp_path / "log", made)
    with ExitStack() as first, ExitStack() as second:
        used = [user.enter_context(shared(tmp_path / "shared", make)) for user in (first, second)]
        assert used == ["address", "address"]
        assert len(made) == 1
        process = psutil.Process(STARTED[-1].pid)
        first.close()
        assert process.is_running()
        second.close()
        assert not process.is_running()
        assert not (tmp_path / "shared").exists()
        with shared(tmp_path / "shared", make):
            assert len(made) == 2


def test_who_comes_while_the_last_one_goes_starts_it_anew(tmp_path: Path) -> None:
    """It waits for the lock, and then finds the directory removed."""
    directory, made = tmp_path / "shared", list[str]()
    directory.mkdir()

    def use() -> str:
        with shared(directory, sleeping(tmp_path / "log", made)) as address:
            return address

    with ThreadPoolExecutor(1) as pool:
        with (directory / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            used = pool.submit(use)
            while [file.path for file in psutil.Process().open_files()].count(lock.name) < 2:
                time.sleep(0.01)
            shutil.rmtree(directory)
        assert used.result() == "address"
    assert not directory.exists()
