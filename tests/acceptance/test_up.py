"""`tickwell up` as a person runs it, and what happens to it."""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from confluent_kafka import Producer
from rich.console import Console

from tests.support.brokers import startable, starts_kafka
from tests.support.pipeline import wait_for
from tickwell.demo import PORTFOLIOS, SYMBOLS
from tickwell.embedded.ports import keep_port
from tickwell.up import state
from tickwell.up.live_view import LiveView

pytestmark = pytest.mark.timeout(300)
PROCESSES = {
    "redis-warm",
    "redis-hot",
    "postgres",
    startable(),
    "server",
    "worker-online",
    "worker-offline",
    "demo",
}


class Up:
    """A data directory, and `tickwell` on it."""

    def __init__(self, data: Path, http: httpx.Client) -> None:
        self.data = data
        self.http = http
        self.port = keep_port(data.with_suffix(".port"))
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("TICKWELL_")}
        self.environment = {**inherited, "LC_ALL": "C"}  # Java takes its encoding of names from it

    def run(self, *arguments: str, fails: bool = False) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "tickwell", *arguments, "--data", str(self.data)],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert (done.returncode != 0) is fails, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    def start(self, *arguments: str) -> str:
        return self.run("up", "--detach", "--port", str(self.port), *arguments)

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("status", "--json"))
        return found

    def processes(self) -> dict[str, dict[str, Any]]:
        return {process["name"]: process for process in self.status()["processes"]}

    def supervisor(self) -> int:
        state = json.loads((self.data / "run/state.json").read_text())
        pid: int = state["pid"]
        return pid


@contextmanager
def an_up(mode: int) -> Iterator[Up]:
    """An `up` in a folder of this mode; what it leaves is deleted."""
    place = Path(tempfile.mkdtemp(prefix="tickwell-up-"))
    place.chmod(mode)
    with httpx.Client() as http:
        started = Up(place / "dà ta", http)
        yield started
    subprocess.run(
        [sys.executable, "-m", "tickwell", "down", "--data", str(started.data)],
        capture_output=True,
        check=False,
    )
    last = state.last(started.data)
    for process in last.processes if last is not None else ():
        if process.directory:
            shutil.rmtree(process.directory)
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def up() -> Iterator[Up]:
    with an_up(0o755) as started:
        yield started


@pytest.fixture
def closed() -> Iterator[Up]:
    """One in a folder that nobody else may pass, as most homes are."""
    with an_up(0o700) as started:
        yield started


def healthy(up: Up) -> bool:
    """As the server says first, which takes no process, and then `tickwell status`."""
    try:
        answer = up.http.get(f"{state.read(up.data).environment['TICKWELL_URL']}/health")
    except httpx.HTTPError:
        return False
    return bool(answer.json()["status"] == "ok" and up.status()["health"] == "ok")


def test_from_nothing_to_features_and_down(up: Up) -> None:
    assert "running at" in up.start()
    assert "already runs" in up.run("up", fails=True)
    assert "already runs" in up.run("up", "--detach", fails=True)
    wait_for("all is well", lambda: healthy(up))
    processes = up.processes()
    assert processes.keys() == PROCESSES
    assert all(process["state"] == "running" for process in processes.values())

    told = up.run("env")
    names = re.findall(r"^export TICKWELL_(\w+)=", told, re.MULTILINE)
    assert names == ["KAFKA", "KAFKA_SECURITY", "REDIS", "REDIS_HOT", "POSTGRES", "URL"]
    get = shlex.join([sys.executable, "-m", "tickwell", "get", "AAPL", "price_sma_20", "--json"])
    script = f'eval "$1"; {get}'

    def value() -> Any:
        shown = subprocess.run(
            ["bash", "-c", script, "-", told],
            env=up.environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return json.loads(shown.stdout)["features"]["price_sma_20"]["status"] == "ok"

    wait_for("the window is full", value)
    assert_live_view(up)
    assert set(up.status()["allocators"]) == {"redis-warm", "redis-hot"}
    pids = [process["pid"] for process in processes.values()]
    assert "stopped" in up.run("down")
    order = re.findall(r"stopping ([\w-]+)", (up.data / "run/up.log").read_text())
    assert order[:4] == ["demo", "worker-offline", "worker-online", "server"]
    assert set(order[4:]) == PROCESSES - set(order[:4])
    assert not [pid for pid in pids if psutil.pid_exists(pid)]
    assert "nothing runs" in up.run("status", fails=True)


def assert_live_view(up: Up) -> None:
    """What `up` draws of real answers, in a small terminal and in a large one."""
    current = state.read(up.data)
    producer = Producer({"bootstrap.servers": current.environment["TICKWELL_KAFKA"]})
    for reason, value in (
        ("malformed", b"?"),
        ("key-mismatch", b'{"symbol":"B","price":1,"ts":1700000000000}'),
    ):
        producer.produce("ticks.price", key=b"A", value=value)
        assert producer.flush(30) == 0
        wait_for("both workers have rejected it", lambda reason=reason: rejected(up, reason))
    for width, height in ((80, 24), (160, 50)):
        console = Console(width=width, height=height, file=StringIO(), record=True)
        url = current.environment["TICKWELL_URL"]
        with closing(LiveView(url, lambda: current.processes, console)) as view:
            console.print(view.draw())
        text = console.export_text()
        lines = [line.rstrip() for line in text.rstrip("\n").split("\n")]
        assert len(lines) <= height
        assert max(map(len, lines)) <= width
        assert "…" not in text
        assert text.count("1 malformed, 1 key-mismatch") == 2
        for name in (*SYMBOLS, *PORTFOLIOS, *PROCESSES):
            assert re.search(rf"(?m)\b{name}\b", text), name
        held = ", ".join(rf"{symbol} -?\d+" for symbol in PORTFOLIOS["P1"])
        in_a_row = (
            rf"\bP1 .*ok {held}" if width == 80 else rf"positions +{' +'.join(sorted(SYMBOLS))}"
        )
        assert re.search(in_a_row, text), text
        command = "\n".join(lines[next(i for i, x in enumerate(lines) if x.startswith("curl")) :])
        answer = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
        assert json.loads(answer.stdout)["features"]["price_sma_5"]["status"] == "ok"


def rejected(up: Up, reason: str) -> bool:
    """Whether both workers have rejected a tick for this reason."""
    found = up.status()["rejected"]
    return len(found) == 2 and all(reason in counts for counts in found.values())


@pytest.mark.skipif(os.geteuid() != 0, reason="a small disk can only be mounted by root")
def test_a_full_disk_is_said_in_a_line(up: Up) -> None:
    up.data.mkdir(parents=True)
    mounted = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(up.data)]
    if subprocess.run(mounted, capture_output=True, check=False).returncode != 0:
        pytest.skip("nothing may be mounted here")
    try:
        told = up.run("up", "--port", str(up.port), "--broker", "tansu", fails=True)
        assert re.search(r"tickwell: .*only 4.* MB are free: make room on the disk under", told)
        with pytest.raises(OSError, match="No space"):
            (up.data / "full").write_bytes(bytes(8 * 2**20))
        for detach in ((), ("--detach",)):
            told = up.run("up", "--port", str(up.port), "--broker", "tansu", *detach, fails=True)
            assert "make room on the disk under" in told
        assert "nothing runs" in up.run("status", fails=True)
    finally:
        subprocess.run(["umount", str(up.data)], check=True)


def test_of_two_at_the_same_time_one_runs(up: Up) -> None:
    command = [sys.executable, "-m", "tickwell", "up", "--detach", "--broker", "tansu", "--no-demo"]
    both = [
        subprocess.Popen(
            [*command, "--data", str(up.data), "--port", str(up.port)],
            env=up.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=120)[0] for process in both]
    assert sorted(process.returncode for process in both) == [0, 1], said
    (refused,) = (text for process, text in zip(both, said, strict=True) if process.returncode)
    assert "already runs" in refused
    assert "ready at" in (up.data / "run/up.log").read_text()


def test_a_port_that_is_taken_is_said(up: Up) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", up.port))
        listener.listen()
        assert f"port {up.port} is taken" in up.run("up", "--port", str(up.port), fails=True)


@starts_kafka()
def test_what_dies_starts_again(up: Up) -> None:
    up.start()
    wait_for("all is well", lambda: healthy(up))
    before = up.processes()
    for process in before.values():
        os.kill(process["pid"], signal.SIGKILL)

    def all_again() -> bool:
        if not healthy(up):
            return False
        now = up.processes()
        return all(
            now[name]["state"] == "running" and now[name]["pid"] != before[name]["pid"]
            for name in before
        )

    wait_for("every process is there again and all is well", all_again)


@starts_kafka()
def test_killed_it_leaves_nothing_behind_and_recovers(up: Up) -> None:
    up.start()
    pids = [process["pid"] for process in up.processes().values()]
    os.kill(up.supervisor(), signal.SIGKILL)
    wait_for("nothing is left", lambda: not [pid for pid in pids if psutil.pid_exists(pid)])
    # and what a crash in the middle of making them would leave
    services = up.data / "services"
    (services / "kafka/log-dir/formatted").unlink()
    (services / "postgres/cluster/postmaster.pid").write_text("1\n")
    shutil.copytree(services / "redis-hot", services / "postgres/cluster.unfinished")
    up.start()
    wait_for("all is well", lambda: healthy(up))


def test_on_tansu_without_the_demo(up: Up) -> None:
    up.start("--broker", "tansu", "--no-demo")
    wait_for("all is well", lambda: healthy(up))
    assert up.processes().keys() == PROCESSES - {startable(), "demo"} | {"tansu"}


@pytest.mark.long
def test_killed_with_its_reaper_the_next_one_ends_what_is_left(up: Up) -> None:
    up.start()
    left = {process["name"]: process["pid"] for process in up.processes().values()}
    supervisor = psutil.Process(up.supervisor())
    reaper = [child for child in supervisor.children() if "tickwell.up.reaper" in child.cmdline()]
    for process in (*reaper, supervisor):
        process.kill()
    up.start()
    # above all no second Valkey or Postgres in the same directory
    assert not [name for name, pid in left.items() if psutil.pid_exists(pid)]
    wait_for("all is well", lambda: healthy(up))


def test_in_a_closed_folder_it_runs_and_opens_nothing(closed: Up) -> None:
    """As whoever runs the tests; for root PostgreSQL's data is then elsewhere."""
    folder = closed.data.parent
    told = closed.start("--broker", "tansu", "--no-demo")
    wait_for("all is well", lambda: healthy(closed))
    elsewhere = os.geteuid() == 0
    for said in (told, closed.run("status")):
        assert ("postgres keeps its data in /var/lib/tickwell/" in said) is elsewhere
    directory = closed.processes()["postgres"]["directory"]
    # the next one ends what is left, though the server works in a directory that is not ours alone
    left = closed.processes()["postgres"]["pid"]
    supervisor = psutil.Process(closed.supervisor())
    reaper = [child for child in supervisor.children() if "tickwell.up.reaper" in child.cmdline()]
    assert reaper
    for process in (*reaper, supervisor):
        process.kill()
    closed.start("--broker", "tansu", "--no-demo")
    assert not psutil.pid_exists(left)
    wait_for("all is well", lambda: healthy(closed))
    closed.environment["TICKWELL_DATA"] = str(closed.data)
    found = subprocess.run(
        [sys.executable, "-m", "tickwell", "get", "AAPL", "current_price", "--json"],
        env=closed.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(found.stdout)["features"]["current_price"]["status"] == "missing"
    assert closed.processes()["postgres"]["directory"] == directory
    closed.run("down")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def two_ports() -> int:
    """The first of two free ports that follow each other, which no socket is given by itself."""
    while True:
        port = random.randrange(10_000, 32_000)
        with socket.socket() as first, socket.socket() as second:
            try:
                first.bind(("127.0.0.1", port))
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


def test_another_address_and_metrics_of_both_workers(up: Up) -> None:
    port = two_ports()
    up.environment |= {"TICKWELL_HOST": "127.0.0.2", "TICKWELL_METRICS_PORT": str(port)}
    up.start("--no-demo")
    wait_for("all is well", lambda: healthy(up))
    processes = up.processes()
    assert processes["server"]["address"] == f"127.0.0.2:{up.port}"
    for number, name in enumerate(("worker-online", "worker-offline")):
        assert processes[name]["address"] == f"127.0.0.1:{port + number}"
        assert processes[name]["restarts"] == 0
        assert httpx.get(f"http://127.0.0.1:{port + number}/metrics").status_code == 200


def test_it_stops_while_maven_is_at_work(up: Up) -> None:
    programs = up.data.parent / "bin"
    programs.mkdir()
    at_work = programs / "at-work"
    for name, script in (
        ("java", "echo 'openjdk version \"17\"' >&2"),
        ("mvn", f"touch '{at_work}'; exec sleep 120"),
    ):
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
    up.environment |= {
        "PATH": f"{programs}{os.pathsep}{up.environment['PATH']}",
        "XDG_CACHE_HOME": str(up.data.parent / "cache"),
    }
    log = up.data.parent / "up.log"
    with log.open("wb") as output:
        running = subprocess.Popen(
            [
                *(sys.executable, "-m", "tickwell", "up"),
                *("--data", str(up.data), "--port", str(up.port)),
            ],
            env=up.environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    wait_for("Maven is at work", at_work.exists)
    started = psutil.Process(running.pid).children(recursive=True)
    running.terminate()
    assert running.wait(30) == 0, log.read_text()
    assert "Traceback" not in log.read_text()
    assert not [child for child in started if child.is_running()]
