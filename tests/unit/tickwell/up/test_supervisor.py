"""What an `up` does before it starts anything."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import psutil
import pytest

from tests.support.brokers import starts_kafka
from tests.support.pipeline import wait_for
from tickwell.embedded import ports
from tickwell.embedded.broker import Broker
from tickwell.errors import TickwellError
from tickwell.settings import Settings
from tickwell.up import state
from tickwell.up.process import Process, Spec
from tickwell.up.state import ProcessView, State
from tickwell.up.supervisor import JOINS_TANSU, Supervisor, check_port


@contextmanager
def an_up(data: Path, broker: Broker = "auto", **named: str) -> Iterator[Supervisor]:
    one = Supervisor(Settings(data=str(data), **named), broker, demo=False, say=lambda line: None)
    try:
        yield one
    finally:
        one.stop()


@pytest.mark.parametrize(
    ("was", "later", "ended"),
    [("running", 0, True), ("running", 60, False), ("stopped", 0, False)],
    ids=["left behind", "its pid is a stranger's", "was stopped"],
)
def test_it_ends_only_what_another_up_left(
    was: str, later: float, ended: bool, tmp_path: Path
) -> None:
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    with subprocess.Popen(sleep, cwd=tmp_path) as process, an_up(tmp_path) as up:
        created = psutil.Process(process.pid).create_time() - later
        Thread(target=process.wait).start()  # as init would reap it
        view = ProcessView("redis-warm", process.pid, "", was, created=created)
        state.write(tmp_path, State(1, "running", (view,), {}))
        up.end_leftovers()
        assert psutil.pid_exists(process.pid) == (not ended)
        process.kill()
    assert process.returncode == -(signal.SIGTERM if ended else signal.SIGKILL)


def test_a_view_says_when_its_process_began(tmp_path: Path) -> None:
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    with an_up(tmp_path) as up:
        up.keep(Process(Spec("sleep", sleep, tmp_path / "log")))
        (view,) = up.processes()
        assert view.pid is not None
        assert view.created == psutil.Process(view.pid).create_time()


def test_where_no_server_can_listen_is_said() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port: int = listener.getsockname()[1]
        with pytest.raises(TickwellError, match=f"port {port} is taken"):
            check_port("127.0.0.1", port)
    with pytest.raises(TickwellError, match=r"HOST=192\.0\.2\.1, port 8001: Cannot assign"):
        check_port("192.0.2.1", 8001)


def test_it_listens_on_an_address_of_ipv6(tmp_path: Path) -> None:
    try:
        with socket.socket(socket.AF_INET6) as listener:
            listener.bind(("::1", 0))
    except OSError:
        pytest.skip("there is no IPv6 here")
    assert ports.bind(0, "::1") > 0
    named = dict.fromkeys(("kafka", "redis", "redis_hot", "postgres"), "elsewhere")
    with an_up(tmp_path, host="::1", **named) as up:
        assert up.start_services(Event()).url == "http://[::1]:8001"


@pytest.mark.parametrize(
    ("kind", "static", "session"),
    [("tansu", False, 3.0), pytest.param("kafka", True, 6.0, marks=starts_kafka())],
)
def test_workers_join_a_broker_as_suits_it(
    kind: Broker, static: bool, session: float, tmp_path: Path
) -> None:
    named = dict.fromkeys(("redis", "redis_hot", "postgres"), "elsewhere")
    with an_up(tmp_path, kind, **named) as up:
        up.start_services(Event())
        environment = up.spec("worker-online").env
    told = {name: environment[f"TICKWELL_{name.upper()}"] for name in JOINS_TANSU}
    joining = Settings.load({f"TICKWELL_{name.upper()}": value for name, value in told.items()})
    assert (joining.static_member, joining.session) == (static, session)


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (
            "print('t INFO w begins'); print('t ERROR w the topic was recreated'); "
            "print('t WARNING w Faust did not stop'); exit(1)",
            "w the topic was recreated",
        ),
        ("print('t INFO w begins'); print('Error: no such option'); exit(2)", "no such option"),
        ("print('t INFO w begins', flush=True); import os; os.kill(os.getpid(), 9)", ""),
    ],
)
def test_what_an_ended_process_said_last_is_shown(program: str, said: str, tmp_path: Path) -> None:
    log, stopped = tmp_path / "log", Event()
    log.write_text("t ERROR w of an earlier one\n")
    with an_up(tmp_path) as up:
        up.keep(Process(Spec("worker", [sys.executable, "-c", program], log)))
        watching = Thread(target=up.watch, args=(stopped,))
        watching.start()
        try:
            wait_for("it has ended", lambda: up.processes()[0].detail)
        finally:
            stopped.set()
            watching.join()
        (view,) = up.processes()
        assert said in view.last_error
        assert bool(view.last_error) == bool(said)
