"""What an `up` does before it starts anything."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import psutil
import pytest

from tickwell.embedded import ports
from tickwell.errors import TickwellError
from tickwell.settings import Settings
from tickwell.up import state, supervisor
from tickwell.up.state import ProcessView, State
from tickwell.up.supervisor import JOINS_TANSU, Supervisor


@contextmanager
def an_up(data: Path) -> Iterator[Supervisor]:
    one = Supervisor(Settings(data=str(data)), "auto", demo=False, say=lambda line: None)
    yield one
    one.stop()


@pytest.mark.parametrize(
    ("was", "later", "ended"),
    [("running", 0, True), ("running", 60, False), ("stopped", 0, False)],
    ids=["left behind", "its pid is a stranger's", "was stopped"],
)
def test_it_ends_only_what_another_up_left(
    was: str, later: float, ended: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped: list[int] = []
    monkeypatch.setattr(supervisor, "stop", lambda pid, number: stopped.append(pid))
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    with subprocess.Popen(sleep, cwd=tmp_path) as process, an_up(tmp_path) as up:
        created = psutil.Process(process.pid).create_time() - later
        view = ProcessView("redis-warm", process.pid, "", was, created=created)
        state.write(tmp_path, State(1, "running", (view,), {}))
        up._end_leftovers()
        process.kill()
    assert stopped == [process.pid] * ended


def test_a_view_says_when_its_process_began(tmp_path: Path) -> None:
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    with an_up(tmp_path) as up:
        up._start(supervisor.Process(supervisor.Spec("sleep", sleep, tmp_path / "log")))
        (view,) = up.processes()
        assert view.pid is not None
        assert view.created == psutil.Process(view.pid).create_time()


def test_where_no_server_can_listen_is_said() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port: int = listener.getsockname()[1]
        with pytest.raises(TickwellError, match=f"port {port} is taken"):
            supervisor._check_port("127.0.0.1", port)
    with pytest.raises(TickwellError, match=r"HOST=192\.0\.2\.1, port 8001: Cannot assign"):
        supervisor._check_port("192.0.2.1", 8001)


def test_it_listens_on_an_address_of_ipv6(tmp_path: Path) -> None:
    try:
        with socket.socket(socket.AF_INET6) as listener:
            listener.bind(("::1", 0))
    except OSError:
        pytest.skip("there is no IPv6 here")
    assert ports.bind(0, "::1") > 0
    with an_up(tmp_path) as up:
        named = dict.fromkeys(("kafka", "redis", "redis_hot", "postgres"), "elsewhere")
        up.settings = Settings(host="::1", **named)
        assert up._start_services(Event()).url == "http://[::1]:8001"


@pytest.mark.parametrize(
    ("kind", "static", "session"), [("tansu", False, 3.0), ("kafka", True, 6.0)]
)
def test_workers_join_a_broker_as_suits_it(
    kind: str, static: bool, session: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "choose", lambda wanted: kind)
    with an_up(tmp_path) as up:
        monkeypatch.setattr(up, "_start_service", lambda make, stopped: "127.0.0.1:1")
        named = dict.fromkeys(("redis", "redis_hot", "postgres"), "elsewhere")
        up.settings = Settings(data=str(tmp_path), **named)
        up._start_services(Event())
        environment = up._spec("worker-online").env
    told = {name: environment[f"TICKWELL_{name.upper()}"] for name in JOINS_TANSU}
    joining = Settings.load({f"TICKWELL_{name.upper()}": value for name, value in told.items()})
    assert (joining.static_member, joining.session) == (static, session)
