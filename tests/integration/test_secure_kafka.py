"""Kafka with users and TLS: every client of ours, and what each refusal is told as."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import msgspec
import psutil
import pytest
from confluent_kafka.admin import AdminClient, ConfigResource  # type: ignore[attr-defined]
from redis import Redis
from starlette.testclient import TestClient

from pipelines.errors import BrokerRefused
from pipelines.kafka.connection import KafkaConnection
from pipelines.kafka.log_offsets import open_consumer
from pipelines.kafka.producer import Tick, TickProducer
from pipelines.kafka.topics import describe, ensure_topics
from pipelines.stores.redis import scripts as scripts_of_redis
from registry.heartbeats import read_heartbeats
from serving.app import ServerOptions, create_app
from tests.support.brokers import starts_kafka
from tests.support.pipeline import Pipeline, pipeline, wait_for
from tests.support.secure_kafka import PASSWORD, SecureKafka, secure_kafka
from tests.support.servers import SecureRedis, pgbouncer, secure_redis
from tickwell.settings import Settings

pytestmark = starts_kafka()

WAYS = {
    "SCRAM-SHA-256 over TLS": ("SECURE", {"kafka_mechanism": "SCRAM-SHA-256"}),
    "SCRAM-SHA-512 over TLS": ("SECURE", {}),
    "PLAIN over TLS": ("SECURE", {"kafka_mechanism": "plain"}),
    "SCRAM without TLS": ("CLEAR", {}),
    "a certificate": ("MUTUAL", {}),
}


@pytest.fixture(scope="module")
def server(data: Path) -> Iterator[SecureKafka]:
    with secure_kafka(data / "secure-kafka") as made:
        yield made


def connection(server: SecureKafka, listener: str, **changes: str) -> KafkaConnection:
    return Settings(**server.settings(listener, **changes)).kafka_connection


@pytest.mark.parametrize("way", WAYS)
def test_every_client_gets_in(server: SecureKafka, way: str) -> None:
    """The administrative one, the producer, and the reader of a replay."""
    listener, changes = WAYS[way]
    kafka = connection(server, listener, **changes)
    topic = f"ticks-{uuid.uuid4().hex[:8]}"
    made = ensure_topics(kafka, [topic], 1)
    producer = TickProducer(kafka, topic)
    producer.send(Tick(b"A", b"1"))
    producer.flush()

    async def values() -> list[bytes]:
        async with open_consumer(kafka) as consumer:
            consumer.subscribe([topic])
            return [(await asyncio.wait_for(consumer.getone(), 20)).value]

    assert asyncio.run(values()) == [b"1"]
    assert describe(kafka, [topic]) == made


REFUSALS = {
    "another password": ("SECURE", {"kafka_password": "another"}, "refuses the user 'tickwell'"),
    "another user": ("CLEAR", {"kafka_username": "nobody"}, "refuses the user 'nobody'"),
    "another authority": ("SECURE", {"kafka_ca": "other-ca"}, "set TICKWELL_KAFKA_CA to"),
    "the system's authorities": ("SECURE", {"kafka_ca": ""}, "set TICKWELL_KAFKA_CA to"),
    "another host name": ("SECURE", {"kafka": "localhost:"}, "does not match its certificate"),
    "no certificate of its own": (
        "MUTUAL",
        {"kafka_cert": "", "kafka_key": ""},
        "set TICKWELL_KAFKA_CERT and TICKWELL_KAFKA_KEY",
    ),
    "no TLS, no user": (
        "SECURE",
        {"kafka_security": "PLAINTEXT"},
        "say so with TICKWELL_KAFKA_SECURITY",
    ),
    "TLS where there is none": ("CLEAR", {"kafka_security": "SASL_SSL"}, "does not speak TLS"),
    "a user where there is none": (
        "PLAINTEXT",
        {"kafka_security": "SASL_PLAINTEXT"},
        "takes no user",
    ),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_a_refusal_says_what_to_set(server: SecureKafka, what: str) -> None:
    listener, changes, said = REFUSALS[what]
    given = server.settings("CLEAR" if listener == "PLAINTEXT" else listener, **changes)
    if given["kafka"] == "localhost:":
        given["kafka"] += str(server.ports[listener])
    elif listener == "PLAINTEXT":
        given["kafka"] = server.address(listener)
    if given.get("kafka_ca") == "other-ca":
        given["kafka_ca"] = server.file("other-ca")
    with pytest.raises(BrokerRefused) as refused:
        describe(Settings(**given).kafka_connection, ["ticks"])
    assert said in str(refused.value)
    assert PASSWORD not in str(refused.value)


def test_a_topic_that_we_make_has_the_time_of_its_arrival(server: SecureKafka) -> None:
    """Whatever time a producer gives its records: `known_at` and `from-the-future` trust theirs."""
    kafka, topic = connection(server, "CLEAR"), f"ticks-{uuid.uuid4().hex[:8]}"
    ensure_topics(kafka, [topic], 1)
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    admin = AdminClient(kafka.librdkafka())  # one that is gone answers nothing
    (asked,) = admin.describe_configs([resource]).values()
    assert asked.result(20)["message.timestamp.type"].value == "LogAppendTime"


def rules(user: str) -> str:
    """The rights in Redis that the README gives a user, by the beginning of its row."""
    readme = Path(__file__).parents[2].joinpath("README.md").read_text()
    found, *_ = re.findall(rf"^\| {user}.* \| `(.*)` \|$", readme, re.MULTILINE)
    return str(found).replace("\\|", "|")


def granted(user: str) -> set[str]:
    return set(re.findall(r"\+(\S+)", rules(user)))


RARE = {"del", "hdel", "hget", "ping", "scan", "srem", "unlink"}
"""Commands for what is seldom: a lost state, old ticks, a long pause, a worker that is gone, an
earlier layout."""


def test_the_rights_of_a_worker_are_enough_for_every_script() -> None:
    """Also for what a script does after a loss, or to a state of an earlier layout."""
    scripts = "".join(text for text in vars(scripts_of_redis).values() if isinstance(text, str))
    called = set(re.findall(r"redis\.p?call\('(\w+)'", scripts))
    assert called
    rights = granted("of workers") | granted("of workers, in the second Redis")
    assert {command.lower() for command in called} <= rights


class Secured(NamedTuple):
    """A pipeline on secured services: its settings are those of a worker."""

    pipeline: Pipeline
    redis: SecureRedis


@pytest.fixture
def secured(
    data: Path, tmp_path: Path, server: SecureKafka, hot_redis: str, postgres_database: str
) -> Iterator[Secured]:
    """Kafka and Redis over TLS, with users, and Postgres behind a pool in transaction mode."""
    given = server.settings("SECURE")
    users = {"reader": rules("of the server"), "admin": "~* &* +@all"}
    with (
        secure_redis(tmp_path / "redis", rules("of workers"), **users) as redis,
        pgbouncer(data / uuid.uuid4().hex, postgres_database) as postgres,
        pipeline(
            tmp_path,
            given.pop("kafka"),
            redis.url(),
            hot_redis,
            postgres,
            partitions=2,
            **given,
        ) as made,
    ):
        yield Secured(made, redis)


def test_everything_works_on_secured_services(secured: Secured, tmp_path: Path) -> None:
    """Workers, relay, produce, replay and server; no password is shown, no right is missing."""
    running, redis = secured
    workers = [running.start_worker(sink) for sink in ("online", "offline")]
    file = tmp_path / "ticks.csv"
    file.write_text("symbol,price,ts\nA,1.5,2024-01-01T00:00:00Z\nB,2.5,2024-01-01T00:00:00Z\n")
    shown = [word for worker in workers for word in psutil.Process(worker.pid).cmdline()]
    running.run_tickwell("produce", str(file), "--source", "price")
    running.produce("price", [(b"A", b"no tick")])
    running.wait_drained("online", "offline")
    wait_for(
        "the rejected tick is relayed", lambda: running.records(running.settings.rejected_topic)
    )
    reader = replace(
        running,
        settings=msgspec.structs.replace(running.settings, redis=redis.url(user="reader")),
    )
    assert "2 rows computed, 0 of them new" in reader.run_tickwell("replay", "--source", "price")
    served(reader.settings)
    running.stop()
    assert "2 entities in Postgres" in running.run_tickwell("rebuild-online", "--source", "price")
    with Redis.from_url(redis.url(user="admin")) as admin:
        refused = [(entry["username"], entry["object"]) for entry in admin.acl_log()]
        used = {name.removeprefix("cmdstat_") for name in admin.info("commandstats")}
    assert [entry for entry in refused if entry[1] != "client|setinfo"] == []
    rights = granted("of workers") | granted("of the server")
    assert rights - used <= RARE
    logs = [log.read_text() for log in running.logs.glob("*.log")]
    assert not [text for text in (*shown, *logs) if PASSWORD in text]


def served(settings: Settings) -> None:
    """What the server answers of a symbol and of its portfolio."""
    options = ServerOptions(settings.redis, settings.redis_hot, settings.postgres)
    asked = {"entity_type": "symbol", "entity_value": "A", "features": ["current_price"]}
    portfolio = {"entity": {"portfolio": "P1"}, "features": ["portfolio_exposure"]}
    with TestClient(create_app(options)) as client:
        wait_for("the server is ready", lambda: client.get("/health/ready").status_code == 200)
        answer = client.post("/features/online", json=asked).json()
        assert answer["features"]["current_price"]["value"] == 1.5
        assert client.post("/features/online", json=portfolio).status_code == 200


def test_a_worker_with_another_password_says_so(secured: Secured) -> None:
    running, _ = secured
    wrong = replace(
        running, settings=msgspec.structs.replace(running.settings, kafka_password="another")
    )
    worker = wrong.start_worker("offline")
    log = running.logs / "offline-one.log"
    wait_for(
        "it says why", lambda: "refuses the user 'tickwell' with this password" in log.read_text()
    )
    assert worker.poll() is None
    with running.redis() as client:
        (beat,) = wait_for(
            "its heartbeat says so",
            lambda: [b for b in read_heartbeats(client) if "refuses the user" in b.error],
        )
    assert beat.state == "retrying"
    wrong.stop()
