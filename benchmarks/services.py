"""One broker and one set of stores for everything that is measured."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import psycopg2
import redis

from benchmarks.processes import THIS, Build, processor_seconds, run_to_end
from registry.api_keys import Scope
from registry.database.engine import connect
from registry.lifecycle import api_keys
from tickwell.embedded.broker import broker, choose
from tickwell.embedded.postgres import postgres
from tickwell.embedded.valkey import valkey
from tickwell.migrate import migrate
from tickwell.settings import Settings
from tickwell.up.process import Process, Spec


@dataclass
class Services:
    """Addresses, and the processes behind them by name."""

    settings: Settings
    place: Path
    broker: str
    pids: dict[str, int] = field(default_factory=dict)
    postgres: str = ""
    """The newest of the databases that `fresh` made."""
    begin: Callable[[tuple[Spec, str]], str] | None = None
    """Starts one more, which is stopped with the others, and returns its URL."""

    def another_redis(self, name: str) -> str:
        """The URL of one more Redis, as that of all rows is."""
        assert self.begin is not None
        spec, url = valkey(self.place / name, "warm")
        log = spec.log.with_name(f"redis-{name}.log")
        return self.begin((replace(spec, name=f"redis-{name}", log=log), url))

    def processor_seconds(self) -> dict[str, float]:
        """Processor time of each service so far."""
        return {name: processor_seconds(pid) for name, pid in self.pids.items()}

    def fresh(self, settings: Settings, build: Build = THIS) -> Settings:
        """Empty both Redis, make a new database with a build's tables, and a new group.

        Returns settings that name them. Raises `Failed` where the build cannot make its tables.
        The write-ahead log of what came before is settled first, so it is in nobody's figure.
        """
        for url in (settings.redis, settings.redis_hot):
            with redis.Redis.from_url(url) as store:
                store.flushall()
        server = self.settings.postgres.rsplit("/", 1)[0]
        maintenance, name = f"{server}/postgres", f"bench_{uuid.uuid4().hex[:8]}"
        if self.postgres:
            old = self.postgres.rsplit("/", 1)[1]
            execute(maintenance, f'DROP DATABASE "{old}" WITH (FORCE)')
        execute(maintenance, f'CREATE DATABASE "{name}"')
        self.postgres = f"{server}/{name}"
        made = msgspec.structs.replace(settings, postgres=self.postgres, group=name)
        if build is THIS:
            migrate(made)
        else:
            run_to_end(
                "migrate", ["-m", "tickwell", "migrate"], environment(made), self.place, build
            )
        execute(made.postgres, "CHECKPOINT")
        return made


@contextmanager
def services(place: Path) -> Iterator[Services]:
    """Start a broker (Apache Kafka where it can be), two Valkeys and Postgres in `place`."""
    kind = choose("auto")
    with ExitStack() as stack:
        pids: dict[str, int] = {}

        def begin(made: tuple[Spec, str]) -> str:
            process = Process(made[0])
            pids[made[0].name] = process.start()
            stack.callback(process.stop)
            process.wait_ready()
            return made[1]

        settings = Settings(
            kafka=begin(broker(place / "broker", kind)),
            redis=begin(valkey(place / "warm", "warm")),
            redis_hot=begin(valkey(place / "hot", "hot")),
            postgres=begin(postgres(place / "postgres")),
        )
        yield Services(settings, place, kind, pids, begin=begin)


def environment(settings: Settings) -> dict[str, str]:
    """The settings as the environment of a process."""
    names = ("kafka", "redis", "redis_hot", "postgres", "features", "group", "rejected_topic")
    return {f"TICKWELL_{name.upper()}": str(getattr(settings, name)) for name in names}


def api_key(settings: Settings) -> str:
    """A new API key with which features may be read, made as `tickwell keys create` makes it."""
    engine = connect(settings.postgres)
    try:
        made = api_keys.create(engine, "bench", {Scope.READ}, "bench")
        api_keys.publish(engine, lambda: redis.Redis.from_url(settings.redis))
        return made.text
    finally:
        engine.dispose()


def execute(url: str, statement: str) -> int:
    """Run one statement by itself; returns the first number that it answers, 0 for none."""
    connection = psycopg2.connect(url)
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
            row = cursor.fetchone() if cursor.description else None
            return int(row[0]) if row and row[0] is not None else 0
    finally:
        connection.close()
