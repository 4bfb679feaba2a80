"""Starts services and processes, keeps them running, and stops them in order.

Services come first, then tables and topics, then workers and server, then the demo; they stop the
other way round. What ends by itself is started again, at once the first time and then with growing
pauses. A reaper stops everything should this process be killed.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock

import msgspec
import psutil

from pipelines.errors import PipelineError
from tickwell.embedded.broker import Broker, broker, choose
from tickwell.embedded.ports import HOST, bind, connect
from tickwell.embedded.postgres import postgres
from tickwell.embedded.valkey import valkey
from tickwell.errors import Stopped, TickwellError
from tickwell.kafka_settings import SECURITY
from tickwell.migrate import migrate, remarks_on_topics, rules_beginning
from tickwell.registry_settings import ACCESS, REGISTRY
from tickwell.restarts import Restarts
from tickwell.server.listening import cannot_listen
from tickwell.server_settings import check_has_keys
from tickwell.settings import PREFIX, Settings
from tickwell.up import state
from tickwell.up.process import STOP_SECONDS, Process, Spec
from tickwell.up.reaper import Reaper, stop
from tickwell.up.state import ProcessView, State

WATCH_SECONDS = 0.25
SAME_SECONDS = 1.0
"""The most, in seconds, by which two readings of when one process began differ: the system counts
from its boot, whose time moves with the clock's."""

PASSED_ON = (
    *("data", "features", "group", "static_member", "session"),
    *("capacity", "rejected_topic"),
)
"""Settings that are passed to every process that is started, beside addresses."""

JOINS_TANSU = {"static_member": False, "session": 3.0}
"""Settings for Tansu, with which a static member waits for six seconds to join, and any other one
for half of its session."""

METRICS = ("worker-online", "worker-offline")
"""The processes that serve metrics on TICKWELL_METRICS_PORT and the port after it."""

WHILE_ON_LOOPBACK = ", while the same stack listens on 127.0.0.1"
"""What runs here is stopped where no key is found, the database too that would know a first one."""

Say = Callable[[str], None]


@dataclass(slots=True)
class _Kept:
    """A process that is kept running."""

    process: Process
    state: str = "starting"
    restarts: Restarts = field(default_factory=Restarts)
    started: float = 0.0
    due: float = 0.0
    detail: str = ""
    last_error: str = ""


@dataclass
class Supervisor:
    """What `tickwell up` does in one data directory, which it must have locked.

    With `from_now` changed rules of sources are recorded at the start.
    """

    settings: Settings
    broker: Broker
    demo: bool
    say: Say
    from_now: bool = False
    phase: str = "starting"
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._data = Path(self.settings.data).resolve()
        self._kept: list[_Kept] = []
        self._publishing = Lock()
        self._reaper = Reaper()

    def start(self, stopped: Event) -> None:
        """Start everything. Raises what `migrate` raises, `ServiceFailed`, and `Stopped`."""
        self.end_leftovers()
        check_port(self.settings.host, self.settings.port)
        self.settings = self.start_services(stopped)
        if stopped.is_set():
            raise Stopped
        self.say("tables, features and topics")
        try:
            self._migrate(stopped)
        except PipelineError:
            if stopped.is_set():  # topics were no longer waited for
                raise Stopped from None
            raise
        check_has_keys(self.settings, WHILE_ON_LOOPBACK)
        for name in self._process_names():
            self.keep(Process(self.spec(name)))
        for kept in self._kept:
            kept.process.wait_ready(stopped)
            kept.state = "running"
        self.phase = "running"
        self._publish()

    def _migrate(self, stopped: Event) -> None:
        if self.from_now:
            with rules_beginning(self.settings) as begin:
                known = migrate(self.settings, stopped, begin)
            for change in begin.changes:
                self.say(str(change))
        else:
            known = migrate(self.settings, stopped, apply=True)
        for remark in remarks_on_topics(self.settings, known):
            self.say(remark)

    def watch(self, stopped: Event) -> None:
        """Start again what ends, until `stopped` is set."""
        while not stopped.wait(WATCH_SECONDS):
            before = self.processes()
            for kept in self._kept:
                self._look_after(kept)
            if self.processes() != before:
                self._publish()

    def stop(self) -> None:
        """Stop everything, the last one first."""
        self.phase = "stopping"
        with suppress(OSError):  # a full disk keeps nothing from being stopped
            self._publish()
        for kept in reversed(self._kept):
            self.say(f"stopping {kept.process.spec.name}")
            pid = kept.process.pid
            kept.process.stop()
            kept.state = "stopped"
            if pid is not None:
                self._reaper.stopped(pid)
        self._reaper.close()
        with suppress(OSError):
            self._publish()

    def processes(self) -> tuple[ProcessView, ...]:
        """Every process as it is now."""
        return tuple(
            ProcessView(
                name=kept.process.spec.name,
                pid=kept.process.pid,
                address=kept.process.spec.address,
                state=kept.state,
                restarts=kept.restarts.count,
                detail=kept.detail,
                created=kept.process.created,
                directory=str(kept.process.spec.directory or ""),
                last_error=kept.last_error,
            )
            for kept in self._kept
        )

    # -- starting

    def start_services(self, stopped: Event) -> Settings:
        """Start what no URL names; returns the settings with every address."""
        settings, services = self.settings, self._data / "services"
        made: dict[str, Callable[[], tuple[Spec, str]]] = {
            "postgres": lambda: postgres(services / "postgres", self.say),
            "redis": lambda: valkey(services / "redis-warm", "warm"),
            "redis_hot": lambda: valkey(services / "redis-hot", "hot"),
        }
        if not settings.kafka:
            check_plain(settings)
            kind = choose(self.broker)
            made["kafka"] = lambda: broker(services / kind, kind, self.say, stopped)
            if kind == "tansu":
                settings = msgspec.structs.replace(settings, **JOINS_TANSU)
        wanted = {name: make for name, make in made.items() if not getattr(settings, name)}
        with ThreadPoolExecutor(max(1, len(wanted))) as pool:
            started = pool.map(lambda make: self._start_service(make, stopped), wanted.values())
            found = dict(zip(wanted, started, strict=True))
        settings = msgspec.structs.replace(settings, **found)
        host = _reached_at(settings.host)
        scheme = "https" if settings.tls_cert else "http"
        url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{settings.port}"
        self.settings = msgspec.structs.replace(settings, url=url, data=str(self._data))
        names = ("kafka", *SECURITY, REGISTRY, *ACCESS, "redis", "redis_hot", "postgres", "url")
        self.environment = {
            f"{PREFIX}{name.upper()}": getattr(self.settings, name) for name in names
        }
        return self.settings

    def _start_service(self, make: Callable[[], tuple[Spec, str]], stopped: Event) -> str:
        spec, address = make()
        self.say(f"{spec.name} on {spec.address}")
        process = Process(spec)
        self.keep(process)
        process.wait_ready(stopped)
        return address

    def keep(self, process: Process) -> None:
        """Start a process; `watch` keeps it running, and `stop` stops it."""
        pid = process.start()
        self._reaper.started(pid, process.spec.stop_signal)
        self._kept.append(_Kept(process, started=time.monotonic()))
        self._publish()

    def _process_names(self) -> list[str]:
        names = ["server", "worker-online", "worker-offline"]
        return [*names, "demo"] if self.demo else names

    def spec(self, name: str) -> Spec:
        """What to run for a worker, the server or the demo, once the services run."""
        settings = self.settings
        arguments: Mapping[str, list[str]] = {
            "server": ["serve", "--host", settings.host, "--port", str(settings.port)],
            "worker-online": ["worker", "--sink", "online"],
            "worker-offline": ["worker", "--sink", "offline"],
            "demo": ["demo"],
        }
        chosen = {f"{PREFIX}{field.upper()}": str(getattr(settings, field)) for field in PASSED_ON}
        host, address, check = _reached_at(settings.host), "", lambda: None
        seconds = STOP_SECONDS
        if name == "server":
            address, check = (
                f"{settings.host}:{settings.port}",
                lambda: connect(host, settings.port),
            )
            seconds += settings.stop_pause_seconds + settings.drain_seconds
        elif settings.metrics_port and name in METRICS:
            port = settings.metrics_port + METRICS.index(name)
            address, chosen[f"{PREFIX}METRICS_PORT"] = f"{HOST}:{port}", str(port)
        return Spec(
            name=name,
            argv=[sys.executable, "-m", "tickwell", *arguments[name]],
            log=self._data / "services" / "log" / f"{name}.log",
            address=address,
            env={**chosen, **self.environment, "PYTHONUNBUFFERED": "1"},
            check=check,
            stop_seconds=seconds,
        )

    def end_leftovers(self) -> None:
        """End what an `up` left that was killed together with its reaper."""
        before = state.last(self._data)
        for left in reversed(before.processes if before else ()):
            if left.pid is None or left.state == "stopped":
                continue
            try:
                process = psutil.Process(left.pid)
                ours = self._is_ours(process, left.created)
            except psutil.Error:
                continue
            if ours:
                self.say(f"ending {left.name}, which was left behind")
                stop(left.pid, 15)

    def _is_ours(self, process: psutil.Process, created: float) -> bool:
        """Whether it began when ours did, and works here; its pid may be another's since."""
        if abs(process.create_time() - created) > SAME_SECONDS:
            return False
        named = [*process.cmdline(), *_environment(process)]
        # Valkey writes its title over both, but works in its directory
        return any(Path(text).is_relative_to(self._data) for text in (*named, process.cwd()))

    # -- watching

    def _look_after(self, kept: _Kept) -> None:
        now = time.monotonic()
        if kept.state == "restarting":
            if now >= kept.due:
                kept.started = now
                self._reaper.started(kept.process.start(), kept.process.spec.stop_signal)
                kept.state = "running"
            return
        code = kept.process.exit_code()
        if code is None:
            return
        if kept.process.pid is not None:
            self._reaper.stopped(kept.process.pid)  # another process may get this pid
        kept.due = now + kept.restarts.after(now - kept.started)
        kept.state = "restarting"
        kept.detail, kept.last_error = f"ended with {code}", kept.process.last_error()
        self.say(f"{kept.process.spec.name} ended with {code} and starts again")

    def _publish(self) -> None:
        with self._publishing:  # services start in threads
            current = State(os.getpid(), self.phase, self.processes(), self.environment)
            state.write(self._data, current)


def check_port(host: str, port: int) -> None:
    """Raises `TickwellError` where the server cannot listen."""
    try:
        bind(port, host)
    except OSError as error:
        raise cannot_listen(host, port, error) from None


def check_plain(settings: Settings) -> None:
    """Raises `TickwellError` where a security is set that the embedded broker does not have."""
    if settings.kafka_connection.protocol != "PLAINTEXT":
        raise TickwellError(
            f"{PREFIX}KAFKA_SECURITY={settings.kafka_security} is for a broker of your own: set "
            f"{PREFIX}KAFKA to its address, or unset {PREFIX}KAFKA_SECURITY for the embedded one"
        )


def _reached_at(host: str) -> str:
    """The address at which this machine reaches a server that listens on `host`."""
    return {"0.0.0.0": HOST, "::": "::1"}.get(host, host)


def _environment(process: psutil.Process) -> list[str]:
    try:
        return list(process.environ().values())
    except psutil.Error:
        return []
