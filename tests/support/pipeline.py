"""A whole pipeline of real processes over topics, a database and a Redis of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psycopg2
import redis
from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from pipelines.kafka.topics import Topic, describe
from registry.features_file import read
from registry.formats.heartbeat import Heartbeat
from registry.heartbeats import read_heartbeats
from tests.checker.topics import read_end
from tests.oracle.messages import Record
from tests.support.brokers import is_kafka
from tickwell.kafka_settings import SECURITY
from tickwell.migrate import migrate
from tickwell.registry_settings import ACCESS, REGISTRY
from tickwell.settings import PREFIX, Settings
from tickwell.up.supervisor import JOINS_TANSU

PATIENCE = 90.0
"""Seconds that a test waits for what must come; not a measure of anything."""


def wait_for(what: str, condition: Callable[[], Any], patience: float = PATIENCE) -> Any:
    """The first true value of `condition`."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{what}: not within {patience:g} s")


@dataclass
class Pipeline:
    """Topics `<prefix>.price` and so on, recorded in a database, and workers on them."""

    settings: Settings
    prefix: str
    logs: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def topics(self) -> dict[str, Topic]:
        return describe(self.settings.kafka_connection, [self.topic(name) for name in self.sources])

    @property
    def sources(self) -> list[str]:
        return ["price", "volume", "position"]

    def topic(self, source: str) -> str:
        return f"{self.prefix}.{source}"

    def environment(self) -> dict[str, str]:
        s = self.settings
        joins = {} if is_kafka() else JOINS_TANSU
        return {
            **{PREFIX + name.upper(): str(value) for name, value in joins.items()},
            **os.environ,
            "TICKWELL_KAFKA": s.kafka,
            **{PREFIX + name.upper(): getattr(s, name) for name in (*SECURITY, REGISTRY, *ACCESS)},
            "TICKWELL_REDIS": s.redis,
            "TICKWELL_REDIS_HOT": s.redis_hot,
            "TICKWELL_POSTGRES": s.postgres,
            "TICKWELL_FEATURES": s.features,
            "TICKWELL_GROUP": s.group,
            "TICKWELL_REJECTED_TOPIC": s.rejected_topic,
        }

    def start(
        self, name: str, *arguments: str, program: Sequence[str] = ("-m", "tickwell")
    ) -> subprocess.Popen[bytes]:
        """Start `tickwell`, or another `program` of Python, as the process `name`."""
        with (self.logs / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *program, *arguments],
                env=self.environment(),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.processes[name] = process
        return process

    def start_worker(
        self, sink: str, instance: str = "one", *arguments: str
    ) -> subprocess.Popen[bytes]:
        who = ("--sink", sink, "--instance", instance)
        return self.start(f"{sink}-{instance}", "worker", *who, *arguments)

    def start_both(self, online: Sequence[str] = (), offline: Sequence[str] = ()) -> None:
        """Start a worker of each sink with these arguments, and wait until both read.

        What Postgres has already when an online worker starts, it rebuilds and does not read.
        """
        self.start_worker("online", "one", *online)
        self.start_worker("offline", "one", *offline)
        states = {"online": "running", "offline": "running"}
        wait_for("both read", lambda: {b.sink: b.state for b in self.heartbeats()} == states)

    def kill(self, name: str) -> None:
        process = self.processes.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def stop(self) -> None:
        for process in self.processes.values():
            process.send_signal(signal.SIGCONT)
            process.terminate()
        for process in self.processes.values():
            process.wait(PATIENCE)
        self.processes.clear()

    def run_tickwell(self, *arguments: str) -> str:
        """Run a command to its end; returns what it printed."""
        done = self._run(arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def refused(self, *arguments: str) -> str:
        """Run a command that must fail; returns the one line that says why."""
        done = self._run(arguments)
        assert done.returncode == 1, done.stdout + done.stderr
        (line,) = done.stderr.splitlines()
        return line

    def _run(self, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tickwell", *arguments],
            env={**self.environment(), "COLUMNS": "500"},
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )

    # -- Kafka

    def producer(self, **settings: Any) -> Producer:
        """A client whose retries double nothing: a busy broker may answer too late."""
        return Producer(
            {
                **self.settings.kafka_connection.librdkafka(),
                "partitioner": "murmur2_random",
                "enable.idempotence": True,
                **settings,
            }
        )

    def produce(
        self,
        source: str,
        messages: Sequence[tuple[bytes | None, bytes | None]],
        producer: Producer | None = None,
        **where: Any,
    ) -> None:
        """Send (key, value) pairs and wait until the broker has them."""
        sender = producer or self.producer()
        for key, value in messages:
            sender.produce(self.topic(source), key=key, value=value, **where)
            sender.poll(0)
        assert sender.flush(60) == 0

    def records(self, topic: str) -> list[Record]:
        """Every committed record of a topic as a plain client reads it, by partition and offset."""
        consumer = Consumer(
            {
                **self.settings.kafka_connection.librdkafka(),
                "group.id": f"reader-{uuid.uuid4()}",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
            }
        )
        partitions = describe(self.settings.kafka_connection, [topic])[topic].partitions
        consumer.assign(
            [TopicPartition(topic, number, OFFSET_BEGINNING) for number in range(partitions)]
        )
        records, ended = [], 0
        while ended < partitions:
            message = consumer.poll(10)
            assert message is not None, "the broker gives nothing"
            if message.error():
                ended += 1
                continue
            records.append(
                Record(
                    topic,
                    message.partition(),
                    message.offset(),
                    message.timestamp()[1],
                    message.key(),
                    message.value(),
                )
            )
        consumer.close()
        return sorted(records, key=lambda record: (record.partition, record.offset))

    def ends(self) -> dict[tuple[bytes, int], int]:
        """The end of every partition, by (topic id, partition)."""
        consumer = Consumer(
            {
                **self.settings.kafka_connection.librdkafka(),
                "group.id": "ends",
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 10,
                "enable.auto.commit": False,
            }
        )
        ends = {
            (topic.topic_id, number): wait_for(
                "the partition has a leader",
                partial(_end, consumer, TopicPartition(topic.name, number)),
            )[0]
            for topic in self.topics.values()
            for number in range(topic.partitions)
        }
        consumer.close()
        return {partition: end for partition, end in ends.items() if end > 0}

    def committed(self, sink: str) -> dict[tuple[bytes, int], int]:
        """The offsets that the group of a sink has committed, by (topic id, partition)."""
        group = f"{self.settings.group}-{sink}"
        admin = AdminClient(self.settings.kafka_connection.librdkafka())
        asked = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])
        topics = self.topics
        return {
            (topics[partition.topic].topic_id, partition.partition): partition.offset
            for partition in asked[group].result(30).topic_partitions
        }

    # -- stores

    def query(self, statement: str, *arguments: Any) -> list[Any]:
        connection = psycopg2.connect(self.settings.postgres)
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement, arguments)
                return cursor.fetchall()
        finally:
            connection.close()

    def redis(self) -> Any:
        return redis.Redis.from_url(self.settings.redis)

    def heartbeats(self) -> list[Heartbeat]:
        with redis.Redis.from_url(self.settings.redis_hot) as client:
            return read_heartbeats(client)

    def wait_drained(self, *sinks: str) -> None:
        """Wait until the stores of `sinks` have every offset."""
        ends = self.ends()
        if "offline" in sinks:
            wait_for("Postgres has every offset", lambda: self._offline().items() >= ends.items())
        if "online" in sinks:
            wait_for("Redis has every offset", lambda: self._online(ends) == ends)

    def watermarks(
        self, sink: str, partitions: dict[tuple[bytes, int], int]
    ) -> dict[tuple[bytes, int], int]:
        """The next offset that a sink's store needs of each partition, as far as it has any."""
        return self._offline() if sink == "offline" else self._online(partitions)

    def _offline(self) -> dict[tuple[bytes, int], int]:
        rows = self.query(
            "SELECT decode(replace(topic_id::text, '-', ''), 'hex'), partition, next_offset"
            " FROM tickwell.watermarks"
        )
        return {(bytes(topic_id), number): offset for topic_id, number, offset in rows}

    def _online(self, ends: dict[tuple[bytes, int], int]) -> dict[tuple[bytes, int], int]:
        with self.redis() as client:
            stored = {
                (topic_id, number): client.get(f"tw:3:watermark:{topic_id.hex()}:{number}")
                for topic_id, number in ends
            }
        return {partition: int(offset or -1) for partition, offset in stored.items()}

    def dump(self) -> bytes:
        """Every row, to the bit, in the order of its key."""
        connection = psycopg2.connect(self.settings.postgres)
        try:
            with connection.cursor() as cursor, (self.logs / "dump").open("w+b") as file:
                cursor.copy_expert(
                    "COPY (SELECT * FROM tickwell.feature_rows ORDER BY entity, schema_id,"
                    " event_time, sequence, revision) TO STDOUT (FORMAT binary)",
                    file,
                )
                file.seek(0)
                return file.read()
        finally:
            connection.close()


def _end(consumer: Consumer, partition: TopicPartition) -> tuple[int] | None:
    """The end of a partition; None while a topic that was just made has no leader yet."""
    try:
        first, named = consumer.get_watermark_offsets(partition, timeout=10)
    except KafkaException:
        return None
    return (named if is_kafka() or named == first else read_end(consumer, partition, named),)


@contextmanager
def pipeline(
    directory: Path,
    kafka: str,
    redis_url: str,
    hot_url: str,
    postgres: str,
    partitions: int = 4,
    **settings_too: Any,
) -> Iterator[Pipeline]:
    """A pipeline without workers yet, over topics that nobody else uses.

    The definitions are those that ship, but that a volume must be positive. `settings_too` are
    more settings by name, such as those of Kafka beside its address.
    """
    if hot_url:  # the last heartbeats of an earlier test would pass for those of its workers
        with redis.Redis.from_url(hot_url) as client:
            client.flushall()
    prefix = f"test-{uuid.uuid4().hex[:8]}"
    shipped = Path(read.__code__.co_filename).with_name("features.toml").read_text()
    features = directory / "features.toml"
    volume = 'topic = "ticks.volume"'
    text = shipped.replace(volume, f"{volume}\npositive = true")
    features.write_text(text.replace('topic = "ticks.', f'topic = "{prefix}.'))
    settings = Settings(
        kafka=kafka,
        redis=redis_url,
        redis_hot=hot_url,
        postgres=postgres,
        features=str(features),
        group=prefix,
        partitions=partitions,
        rejected_topic=f"{prefix}.rejected",
        **settings_too,
    )
    migrate(settings)
    running = Pipeline(settings, prefix, directory)
    try:
        yield running
    finally:
        running.stop()
