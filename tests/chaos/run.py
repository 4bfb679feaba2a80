"""One run: start everything, load it, hit it, drain it, check it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import psycopg2

from pipelines.repair.repair import settle_all
from registry.catalog import load as load_catalog
from registry.database.engine import connect as connect_engine
from registry.durations import span_ns
from registry.features_file import read as shipped_definitions
from tests.chaos.changes import Changes
from tests.chaos.faults import Faults
from tests.chaos.history import DELAY, History
from tests.chaos.processes import Processes
from tests.chaos.producers import Load
from tests.chaos.readers import Readers
from tests.chaos.schedule import SERVERS, WARM, WORKERS, schedule
from tests.chaos.warm import NO_REDIS, client_of
from tests.checker.check import History as CheckedHistory
from tests.checker.check import Run as CheckedRun
from tests.checker.check import check
from tests.checker.findings import Findings
from tests.checker.online import redis_watermarks
from tests.checker.stored import watermarks
from tests.checker.topics import Kafka
from tests.checker.training_sets import Answer
from tests.support import cluster
from tickwell.embedded.broker import broker
from tickwell.embedded.ports import connect, keep_port
from tickwell.embedded.postgres import postgres
from tickwell.embedded.valkey import valkey
from tickwell.migrate import migrate
from tickwell.settings import Settings
from tickwell.up.process import Spec

SOURCES = ("price", "volume", "position")
PARTITIONS = 4
DRAIN_SECONDS = 240.0
"""After the last fault: restarts, rebalances and the backlog."""

LAGGING_SECONDS = 5.0
"""From here on the server must say that it is behind."""

SLACK_SECONDS = 5.0
"""What it may take to notice: a heartbeat each second, and a look at it each second, on a machine
that has more to do than it can."""


KNOWN_AFTER_NS = span_ns(DELAY, "delay", DELAY, "delay")


class Failed(Exception):
    """The run did not come to its end; says what did not."""


@dataclass(frozen=True)
class Options:
    """`rate` is messages a second. `place` keeps logs and what readers saw.

    With `cluster` the warm Redis is a Redis Cluster of three nodes.
    """

    seed: int
    minutes: float
    place: Path
    rate: float = 400.0
    cluster: bool = False


@dataclass
class Result:
    """What a run came to."""

    options: Options
    faults: dict[str, int]
    findings: Findings
    load: Load
    reads: dict[str, int]
    ended: dict[str, int]
    seconds: dict[str, float] = field(default_factory=dict)
    changes: dict[str, int] = field(default_factory=dict)
    history: dict[str, int] = field(default_factory=dict)

    @property
    def clean(self) -> bool:
        return self.findings.clean


def run(options: Options, say: Callable[[str], None]) -> Result:
    """Raises `Failed`, and `ServiceFailed` when a service does not start."""
    processes = Processes(say)
    try:
        return _Run(options, processes, say).run()
    finally:
        processes.stop()


class _Run:
    def __init__(self, options: Options, processes: Processes, say: Callable[[str], None]) -> None:
        self._options = options
        self._processes = processes
        self._say = say
        self._seconds: dict[str, float] = {}
        self._nodes: list[str] = []
        self._data = options.place / "data"

    def run(self) -> Result:
        options = self._options
        faults = schedule(options.seed, options.minutes * 60)
        with self._timed("start"):
            settings = self._start_services()
            urls = self._start_ours(settings)
        topics = {source: f"ticks.{source}" for source in SOURCES}
        load = Load(settings.kafka, options.seed, options.rate, topics, PARTITIONS)
        readers = Readers(urls, settings.redis, options.seed, options.place, options.cluster)
        doing = Faults(self._processes, settings.postgres, self._say, self._nodes)
        changes = Changes(
            settings.postgres, settings.redis, options.seed, self._say, options.cluster
        )
        with self._timed("first ticks"):
            load.prime()
            self._wait_drained(settings)
        place = options.place
        history = History(urls, self._environment(settings), options.seed, place, self._say)
        try:
            load.start()
            readers.start()
            changes.start()
            history.start()
            with self._timed("faults"):
                doing.run(faults)
            changes.stop()
            history.stop()
            load.stop()
            with self._timed("drain"):
                self._wait_drained(settings)
        finally:
            changes.stop()
            history.stop()
            load.stop()
            readers.stop()
        failures = [
            *doing.failures,
            *changes.failures,
            *history.failures,
            *load.failures,
            *readers.failures,
        ]
        if failures:
            raise Failed("\n".join(failures))
        with self._timed("history"):
            again = self._finish_history(settings, history)
        # Redis gives no snapshot as Postgres does: nobody may write while it is read
        self._processes.stop([*WORKERS, *SERVERS])
        self._say("checking")
        with self._timed("check"):
            findings = check(
                CheckedRun(
                    kafka=settings.kafka,
                    redis=settings.redis,
                    cluster=options.cluster,
                    postgres=settings.postgres,
                    rejected_topic=settings.rejected_topic,
                    rebuilt=True,  # what Redis loses of a partition comes back from Postgres
                    observations=readers.files,
                    behind_seconds=LAGGING_SECONDS + SLACK_SECONDS,
                    history=CheckedHistory(history.answers, again, (history.file, KNOWN_AFTER_NS)),
                ),
                bars=sys.stdout.isatty(),
            )
        ended = dict(self._processes.ended)
        done = dict(doing.done)
        changed = dict(changes.done)
        came = options, done, findings, load, readers.reads, ended
        return Result(*came, self._seconds, changed, dict(history.done))

    def _finish_history(self, settings: Settings, history: History) -> list[tuple[Answer, Answer]]:
        """Do what is left of repairs, loads and exports, and ask again what was asked."""
        try:
            history.finish()
            engine = connect_engine(settings.postgres)
            try:
                while settle_all(settings.postgres, lambda: load_catalog(engine), Event()):
                    pass
            finally:
                engine.dispose()
            history.verify()
            again = history.ask_again()
        except AssertionError as error:
            raise Failed(str(error)) from None
        if found := self._found_by_workers(settings):
            raise Failed(f"workers that verify beside their work have found {found}")
        return again

    def _found_by_workers(self, settings: Settings) -> list[Any]:
        connection = psycopg2.connect(settings.postgres)
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT * FROM tickwell.found_differences ORDER BY found_at LIMIT 5")
                return list(cursor.fetchall())
        finally:
            connection.close()

    def _start_services(self) -> Settings:
        data = self._options.place / "services"
        with ThreadPoolExecutor(4) as pool:
            made = {
                "redis_hot": pool.submit(valkey, data / "redis-hot", "hot"),
                "postgres": pool.submit(postgres, data / "postgres"),
                "kafka": pool.submit(broker, data / "kafka", "kafka", self._say),
            }
            if not self._options.cluster:
                made["redis"] = pool.submit(valkey, data / WARM, "warm")
            specs = {name: each.result() for name, each in made.items()}
        names = {"redis": WARM, "redis_hot": "redis-hot"}
        with ThreadPoolExecutor(4) as pool:
            starting = [
                pool.submit(self._processes.start, names.get(name, name), spec, True)
                for name, (spec, _) in specs.items()
            ]
            for each in starting:
                each.result()
        addresses: dict[str, Any] = {name: address for name, (_, address) in specs.items()}
        if self._options.cluster:
            addresses |= {"redis": self._start_cluster(data / WARM), "cluster": True}
        settings = Settings(features=str(self._features()), partitions=PARTITIONS, **addresses)
        migrate(settings)
        return settings

    def _start_cluster(self, directory: Path) -> str:
        """Start the nodes of a cluster; returns the URL of one."""
        specs = cluster.node_specs(directory)
        for spec in specs.values():
            self._nodes.append(spec.name)
            self._processes.start(spec.name, spec, True)
        urls = list(specs)
        cluster.form(urls)
        return urls[0]

    def _features(self) -> Path:
        """The shipped definitions, but that a volume must be positive."""
        shipped = Path(shipped_definitions.__code__.co_filename).with_name("features.toml")
        file = self._options.place / "features.toml"
        volume = 'topic = "ticks.volume"'
        file.write_text(shipped.read_text().replace(volume, f"{volume}\npositive = true"))
        return file

    def _start_ours(self, settings: Settings) -> list[str]:
        """Workers and servers; returns the URLs of the servers."""
        for name in WORKERS:
            sink, instance = name.split("-")
            arguments = ("worker", "--sink", sink, "--instance", f"{instance}")
            self._processes.start(name, self._spec(settings, name, *arguments), False)
        urls = []
        for name in SERVERS:
            port = keep_port(self._options.place / f"{name}.port")
            spec = self._spec(settings, name, "serve", "--port", str(port))
            self._processes.start(name, spec, False)
            urls.append(f"http://127.0.0.1:{port}")
        for url in urls:
            self._wait(f"{url} answers", partial(_listens, url), 60)
        return urls

    def _spec(self, settings: Settings, name: str, *arguments: str) -> Spec:
        return Spec(
            name=name,
            argv=[sys.executable, "-m", "tickwell", *arguments],
            log=self._options.place / "services" / "log" / f"{name}.log",
            env=self._environment(settings) | {"PYTHONUNBUFFERED": "1"},
        )

    def _environment(self, settings: Settings) -> dict[str, str]:
        chosen = (
            *("kafka", "redis", "redis_hot", "cluster", "postgres"),
            *("features", "rejected_topic", "group"),
        )
        environment = {f"TICKWELL_{key.upper()}": str(getattr(settings, key)) for key in chosen}
        more = {"VERIFY_ENTITIES": "600", "SERVED_LOG_EVERY": "5", "DATA": self._data}
        return environment | {f"TICKWELL_{name}": str(value) for name, value in more.items()}

    def _wait_drained(self, settings: Settings) -> None:
        """Both stores have every offset, and every rejected tick is published."""
        kafka = Kafka(settings.kafka)
        topics = [kafka.describe(f"ticks.{source}") for source in SOURCES]
        behind: list[str] = []

        def drained() -> bool:
            behind[:] = []
            try:
                connection = psycopg2.connect(settings.postgres, connect_timeout=5)
                client = client_of(settings.redis, settings.cluster)
                for topic in topics:
                    ends = {n: end for n, end in enumerate(topic.ends) if end}
                    for store, kept in (
                        ("Postgres", watermarks(connection, topic.topic_id)),
                        ("Redis", redis_watermarks(client, topic)),
                    ):
                        if not ends.items() <= kept.items():
                            behind.append(f"{store} has {dict(kept)} of {topic.name}, {ends}")
                with connection.cursor() as cursor:
                    cursor.execute(
                        "SELECT count(*) FROM tickwell.rejected_ticks WHERE relayed_at IS NULL"
                    )
                    ((waiting,),) = cursor.fetchall()
                    if waiting:
                        behind.append(f"{waiting} rejected ticks are not relayed")
                connection.close()
                client.close()
            except (psycopg2.OperationalError, *NO_REDIS) as error:
                behind.append(str(error))
            return not behind

        try:
            self._wait("drained", drained, DRAIN_SECONDS)
        except Failed as failed:
            raise Failed(f"{failed}: {'; '.join(behind)}") from None

    def _wait(self, what: str, condition: Callable[[], bool], patience: float) -> None:
        deadline = time.monotonic() + patience
        while not condition():
            if time.monotonic() > deadline:
                raise Failed(f"{what}: not within {patience:g} s")
            time.sleep(0.25)

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self._seconds[phase] = time.monotonic() - began


def _listens(url: str) -> bool:
    host, port = url.removeprefix("http://").split(":")
    try:
        connect(host, int(port))
    except OSError:
        return False
    return True
