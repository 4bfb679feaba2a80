"""The services as containers: the images and settings of `compose/compose.yaml`.

Naming a container already asks the engine, so `engine_answers` comes first.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Literal, Self

import docker
from docker.errors import DockerException
from testcontainers.community.postgres import PostgresContainer
from testcontainers.community.redis import RedisContainer
from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

from tickwell.embedded.valkey import HOT, WARM

KAFKA = "apache/kafka:4.3.1"
VALKEY = "valkey/valkey:9.1.2-alpine"
POSTGRES = "postgres:18.1-bookworm"
SOCKET = Path("/var/run/docker.sock")
PORT = 9092
SCRIPT, COPIED = "/tmp/start.sh", "/tmp/start.copied"


@cache
def engine_answers() -> bool:
    """Whether there is a Docker engine."""
    if not SOCKET.exists() and "DOCKER_HOST" not in os.environ:
        return False
    try:
        client = docker.from_env(timeout=2)
    except DockerException:
        return False
    try:
        return bool(client.ping())
    except DockerException:
        return False
    finally:
        client.close()


class KafkaContainer(DockerContainer):
    """Apache Kafka. testcontainers' own class of this name runs Confluent's image.

    A broker tells clients its address, which is known when its port is: so the container waits for
    a script that is copied into it once it has started. The broker talks to itself on a listener of
    its own (it sends itself the markers of transactions), for it cannot reach the published port.
    """

    def __init__(self) -> None:
        super().__init__(KAFKA)
        self.with_exposed_ports(PORT)
        self.with_command(["sh", "-c", f"while [ ! -f {COPIED} ]; do sleep 0.1; done; . {SCRIPT}"])
        self.with_envs(
            KAFKA_NODE_ID="1",
            KAFKA_PROCESS_ROLES="broker,controller",
            KAFKA_LISTENERS=f"PLAINTEXT://:{PORT},BROKER://:9093,CONTROLLER://:9094",
            KAFKA_INTER_BROKER_LISTENER_NAME="BROKER",
            KAFKA_CONTROLLER_LISTENER_NAMES="CONTROLLER",
            KAFKA_LISTENER_SECURITY_PROTOCOL_MAP=(
                "PLAINTEXT:PLAINTEXT,BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT"
            ),
            KAFKA_CONTROLLER_QUORUM_VOTERS="1@localhost:9094",
            KAFKA_AUTO_CREATE_TOPICS_ENABLE="false",
            KAFKA_DEFAULT_REPLICATION_FACTOR="1",
            KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR="1",
            KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR="1",
            KAFKA_TRANSACTION_STATE_LOG_MIN_ISR="1",
            KAFKA_GROUP_MIN_SESSION_TIMEOUT_MS="3000",
            KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS="0",
        )

    @property
    def bootstrap(self) -> str:
        """Where clients begin."""
        return f"{self.get_container_host_ip()}:{self.get_exposed_port(PORT)}"

    def start(self) -> Self:
        super().start()
        listeners = f"PLAINTEXT://{self.bootstrap},BROKER://localhost:9093"
        script = f"export KAFKA_ADVERTISED_LISTENERS={listeners}\nexec /etc/kafka/docker/run\n"
        self.copy_into_container(script.encode(), SCRIPT)
        self.copy_into_container(b"", COPIED)  # the shell that waits must not read half a script
        LogMessageWaitStrategy("Kafka Server started").with_startup_timeout(60).wait_until_ready(
            self
        )
        return self


def valkey(tier: Literal["warm", "hot"]) -> RedisContainer:
    """A Valkey with the settings of its tier."""
    container = RedisContainer(VALKEY)
    container.with_command(["valkey-server", *(WARM if tier == "warm" else HOT)])
    return container


def postgres() -> PostgresContainer:
    """A PostgreSQL; its `get_connection_url()` is a libpq URL."""
    return PostgresContainer(POSTGRES, driver=None)
