"""The whole check, in order: log and Postgres, then Redis, then what readers saw."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg2
import redis
from redis.exceptions import RedisClusterException, RedisError
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tests.checker.findings import Findings, NotCheckable
from tests.checker.loaded import check_loaded
from tests.checker.observations import Watched, check_observations, read_observations
from tests.checker.online import check_redis, check_watermarks, redis_watermarks
from tests.checker.relayed import Relayed
from tests.checker.repaired import check_repaired
from tests.checker.rows import Walked, walk
from tests.checker.sources import read_sources
from tests.checker.stored import rows_of_other_topics, watermarks
from tests.checker.topics import Kafka, Topic
from tests.checker.training_sets import Answer, check_same, check_served


@dataclass(frozen=True)
class History:
    """What was asked of history, as `tests.checker.training_sets` has it, and what was loaded.

    `again` are answers as of a moment, then and now, `loaded` is a file of prices of the past and
    how many nanoseconds after its time each was known.
    """

    answers: Sequence[Answer] = ()
    again: Sequence[tuple[Answer, Answer]] = ()
    loaded: tuple[Path, int] | None = None


@dataclass(frozen=True)
class Run:
    """Where a run's traces are. `topics` is by source and goes before what is recorded.

    With `cluster` the Redis is a Redis Cluster; `rebuilt` says that entities were put back there
    from Postgres. `behind_seconds`: so long may a value be served as `ok` while a newer tick is in
    Kafka, the server's limit and what it takes to notice. `history` is held against the log as
    well, by all its ticks, which are kept in memory.
    """

    kafka: str
    redis: str
    postgres: str
    cluster: bool = False
    rebuilt: bool = False
    rejected_topic: str = "ticks.rejected"
    topics: Mapping[str, str] = field(default_factory=dict)
    observations: Sequence[Path] = ()
    behind_seconds: float = 10.0
    history: History | None = None


def check(run: Run, bars: bool = True) -> Findings:
    """Everything that can be said of a drained run. Raises `NotCheckable`."""
    findings = Findings()
    kafka = Kafka(run.kafka)
    try:
        with _postgres(run.postgres) as connection, _redis(run) as client:
            sources = read_sources(connection, run.topics)
            topics = {source.name: kafka.describe(source.spec.topic) for source in sources}
            _must_be_whole(topics.values())
            observations = read_observations(run.observations)
            watched = Watched.of(observations)
            relayed = Relayed(findings)
            relayed.read(kafka, kafka.describe(run.rejected_topic))
            walked: dict[str, Walked] = {}
            with _progress(bars) as bar:
                for source in sources:
                    topic = topics[source.name]
                    step = bar(topic.name, topic.offsets)
                    messages = kafka.messages(topic, step)
                    keeps = run.history is not None
                    of_source = walked[source.name] = Walked(source, topic, keeps=keeps)
                    walk(of_source, messages, connection, relayed, watched, findings)
                    kept = watermarks(connection, topic.topic_id)
                    check_watermarks("Postgres", kept, topic, findings)
                relayed.end(list(topics.values()))
                ids = [topic.topic_id for topic in topics.values()]
                for topic_id, rows in rows_of_other_topics(connection, ids):
                    findings.differ(
                        "unexplained row", f"{rows} rows of the topic id {topic_id}, which is gone"
                    )
                step = bar("Redis", sum(len(each.newest) for each in walked.values()))
                check_redis(client, walked, findings, step, run.rebuilt)
            if run.history is not None:
                _check_history(run.history, connection, walked, findings)
            for topic in topics.values():
                check_watermarks("Redis", redis_watermarks(client, topic), topic, findings)
            behind = int(run.behind_seconds * 1e9)
            check_observations(observations, watched, sources, behind, findings)
    except (psycopg2.Error, RedisError, RedisClusterException) as error:
        raise NotCheckable(f"a store does not answer: {str(error).strip()}") from None
    return findings


def _check_history(
    history: History, connection: Any, walked: Mapping[str, Walked], findings: Findings
) -> None:
    for of_source in walked.values():
        check_repaired(connection, of_source, findings)
    if history.loaded is not None:
        check_loaded(connection, *history.loaded, walked["price"], findings)
    check_served(history.answers, walked, findings)
    check_same(history.again, findings)


def _must_be_whole(topics: Iterable[Topic]) -> None:
    """Raises `NotCheckable` where Kafka has forgotten the beginning of a log."""
    for topic in topics:
        for partition, begin in enumerate(topic.begins):
            if begin:
                raise NotCheckable(
                    f"{topic.name}[{partition}] begins at offset {begin}: what came before is gone "
                    "from Kafka, and with it the proof of what must be stored"
                )


def _redis(run: Run) -> Any:
    return (redis.RedisCluster if run.cluster else redis.Redis).from_url(run.redis)


@contextmanager
def _postgres(url: str) -> Iterator[psycopg2.extensions.connection]:
    """One consistent reading of everything."""
    connection = psycopg2.connect(url)
    try:
        connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        yield connection
    finally:
        connection.close()


Bar = Callable[[str, int], Callable[[int], None]]


@contextmanager
def _progress(shown: bool) -> Iterator[Bar]:
    """Bars on a terminal: (what, how many) to a function that takes steps."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), transient=True, disable=not shown) as progress:

        def bar(what: str, total: int) -> Callable[[int], None]:
            task = progress.add_task(what, total=total)
            return lambda steps: progress.advance(task, steps)

        yield bar
