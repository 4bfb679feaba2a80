"""Three brokers of Apache Kafka, each one a controller too, which a test may kill and freeze."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.support.pipeline import wait_for
from tests.support.services import kill
from tickwell.embedded.broker import CLUSTER_ID, kafka
from tickwell.embedded.ports import HOST, connect, keep_port
from tickwell.up.process import Process, Spec

NODES = 3
HEAP = ["-Xmx160m", "-Xms96m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]


@dataclass(frozen=True)
class KafkaCluster:
    """Its nodes by their ids, 1 to 3; `addresses` are theirs."""

    nodes: dict[int, Process]
    addresses: dict[int, str]

    def kill(self, node: int) -> None:
        kill(self.nodes[node])

    def freeze(self, node: int) -> None:
        """Stop it with all its connections open, as a machine that swaps or a paused one does."""
        self._signal(node, signal.SIGSTOP)

    def thaw(self, node: int) -> None:
        self._signal(node, signal.SIGCONT)

    def start(self, node: int) -> None:
        """Start one that was killed; returns once it answers."""
        self.nodes[node].start()
        self.nodes[node].wait_ready()

    def leader(self, topic: str, partition: int) -> int:
        """The node that leads a partition."""
        return int(self._partition(topic, partition).leader)

    def in_sync(self, topic: str, partition: int) -> set[int]:
        """The nodes that have all of a partition."""
        return set(self._partition(topic, partition).isrs)

    def _partition(self, topic: str, partition: int) -> Any:
        """By the metadata, which any of them has; `describe_topics` asks one that may be dead."""
        return wait_for("one answers", lambda: self._named(topic)).partitions[partition]

    def _named(self, topic: str) -> Any:
        with suppress(KafkaException):
            return _admin(self.addresses.values()).list_topics(topic, timeout=3).topics[topic]

    def _signal(self, node: int, number: signal.Signals) -> None:
        pid = self.nodes[node].pid
        assert pid is not None
        os.kill(pid, number)


@contextmanager
def kafka_cluster(directory: Path) -> Iterator[KafkaCluster]:
    """Topics have one replica unless more are asked for, as by Kafka's default; two in sync do."""
    plain, _ = kafka(directory / "plain")  # brings the jars, and says how they are run
    java = ["java", *HEAP, *plain.argv[plain.argv.index("-cp") : -2]]
    ids = range(1, NODES + 1)
    ports = {
        node: (keep_port(directory / f"{node}.port"), keep_port(directory / f"{node}.controller"))
        for node in ids
    }
    addresses = {node: f"{HOST}:{ports[node][0]}" for node in ids}
    voters = ",".join(f"{node}@{HOST}:{ports[node][1]}" for node in ids)
    processes = {}
    for node in ids:
        properties = directory / f"{node}.properties"
        properties.write_text(_properties(directory / f"log-{node}", node, voters, ports[node]))
        host, port = HOST, ports[node][0]
        processes[node] = Process(
            Spec(
                f"kafka-{node}",
                [*java, "kafka.Kafka", str(properties)],
                directory / f"{node}.log",
                addresses[node],
                check=lambda host=host, port=port: connect(host, port),  # type: ignore[misc]
                start_seconds=120,
            )
        )
    with ThreadPoolExecutor(NODES) as pool:
        list(pool.map(lambda node: _format(java, directory / f"{node}.properties"), ids))
    cluster = KafkaCluster(processes, addresses)
    try:
        for process in processes.values():
            process.start()
        for process in processes.values():
            process.wait_ready()
        wait_for("all brokers are known", lambda: _brokers(addresses.values()) == NODES)
        yield cluster
    finally:
        for process in processes.values():
            if process.exit_code() is None and process.pid is not None:
                os.kill(process.pid, signal.SIGKILL)  # their shutdown waits for one another
                process.stop()


def _properties(log: Path, node: int, voters: str, ports: tuple[int, int]) -> str:
    listeners = f"PLAINTEXT://{HOST}:{ports[0]}"
    return f"""\
process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
listeners={listeners},CONTROLLER://{HOST}:{ports[1]}
advertised.listeners={listeners}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={log}
auto.create.topics.enable=false
min.insync.replicas=2
unclean.leader.election.enable=false
offsets.topic.replication.factor=3
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
transaction.state.log.num.partitions=4
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=3000
log.cleaner.dedupe.buffer.size=16777216
"""


def _format(java: list[str], properties: Path) -> None:
    command = [*java, "kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(properties)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _brokers(addresses: Iterable[str]) -> int:
    admin = _admin(addresses)  # one that is gone answers nothing
    return len(admin.describe_cluster(request_timeout=10).result(20).nodes)


def _admin(addresses: Iterable[str]) -> AdminClient:
    return AdminClient({"bootstrap.servers": ",".join(addresses), "log_level": 0})
