"""A service that several test processes use."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path

import psutil

from tests.support.shared_service import STARTED, shared
from tickwell.up.process import Spec


def test_the_first_one_starts_it_and_the_last_one_stops_it(tmp_path: Path) -> None:
    made = []

    def make() -> tuple[Spec, str]:
        made.append("address")
        sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
        return Spec("sleep", sleep, tmp_path / "log"), made[-1]

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
