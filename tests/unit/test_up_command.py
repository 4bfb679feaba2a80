"""`tickwell up`, before and around what it starts, and `tickwell env` meanwhile."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tickwell import state
from tickwell.commands import up as command
from tickwell.commands.env import env
from tickwell.commands.up import up
from tickwell.errors import TickwellError


def test_there_is_no_environment_while_it_starts(tmp_path: Path) -> None:
    with state.locked(tmp_path), pytest.raises(TickwellError, match="still starting; ask again"):
        env(str(tmp_path))


def test_interrupted_it_leaves_nothing_in_the_background(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def start(_: object, **options: Any) -> subprocess.Popen[bytes]:
        started.append(popen(["sleep", "60"], **options))
        return started[-1]

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    popen = subprocess.Popen
    monkeypatch.setattr(command.subprocess, "Popen", start)
    monkeypatch.setattr(command.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        up(data=str(tmp_path), detach=True)
    monkeypatch.undo()
    (child,) = started
    try:
        assert child.wait(5)
    finally:
        child.kill()
        child.wait()
