"""What goes wrong around the workers, one thing after the other, under load where that matters."""

from __future__ import annotations

import json
import shutil
import signal
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from redis.exceptions import RedisError

from registry.database import migrations
from registry.database.engine import connect
from registry.formats.heartbeat import Heartbeat
from registry.formats.redis_keys import worker_key
from tests.support.brokers import starts_kafka
from tests.support.checks import assert_no_difference
from tests.support.load import SYMBOLS, load, progress, reader
from tests.support.pipeline import PATIENCE, Pipeline, pipeline, wait_for
from tests.support.services import kill
from tickwell.embedded.broker import broker
from tickwell.up.process import Process

pytestmark = starts_kafka()
SINKS = ("online", "offline")
Services = dict[str, tuple[Process, str]]
SESSION = 7.0
"""Seconds after which a worker that is paused has lost its partitions."""


@pytest.fixture
def own(services: Services, data: Path, tmp_path: Path, hot_redis: str) -> Iterator[Pipeline]:
    """A pipeline whose stores and broker the test may kill; the broker is `services["kafka"]`."""
    spec, address = broker(data / uuid.uuid4().hex / "kafka", "kafka")
    process = Process(spec)
    process.start()
    try:
        process.wait_ready()
        services["kafka"] = (process, address)
        engine = connect(services["postgres"][1])
        migrations.upgrade(engine)
        engine.dispose()
        urls = (services["redis"][1], hot_redis, services["postgres"][1])
        with pipeline(tmp_path, address, *urls) as running:
            yield running
    finally:
        process.stop()


@pytest.mark.long
@pytest.mark.timeout(600)
def test_one_after_the_other(own: Pipeline, services: Services) -> None:
    """Restarts in turn, of the broker, of stores; offsets that lie; a full Redis, an older one."""
    for sink in SINKS:
        for instance in ("one", "two"):
            own.start_worker(sink, instance)
    for instance in ("one", "two"):
        wait_until_running(own, instance)
    with load(own, 400), reader(own) as steps_back:
        stores_more(own, "online", "offline")
        restart_in_turn(own)
        restart("kafka", services)
        stores_more(own, "online", "offline")
        restart("postgres", services)
        stores_more(own, "online", "offline")
        fill_redis(own)
        stores_more(own, "online", "offline")
    assert steps_back == []
    with load(own, 400):
        give_back_an_older_redis(own, services)
        stores_more(own, "online")
    move_committed_offsets(own)
    own.wait_drained("online", "offline")
    assert_no_difference(own)


def stores_more(running: Pipeline, *sinks: str) -> None:
    for sink in sinks:
        before = progress(running, sink)
        wait_for(f"{sink} stores more", lambda sink=sink, at=before: progress(running, sink) > at)


def restart(name: str, services: Services) -> None:
    process, _ = services[name]
    kill(process)
    process.start()
    process.wait_ready()


def restart_in_turn(running: Pipeline) -> None:
    """As a deployment does: one of each sink is stopped, the other one goes on, and it is started
    again and works before the next one."""
    for instance in ("one", "two"):
        stopped = [running.processes.pop(f"{sink}-{instance}") for sink in SINKS]
        for process in stopped:
            process.terminate()
        assert [process.wait(PATIENCE) for process in stopped] == [0, 0]
        stores_more(running, *SINKS)
        for sink in SINKS:
            running.start_worker(sink, instance)
        wait_until_running(running, instance)
        stores_more(running, *SINKS)


def wait_until_running(running: Pipeline, instance: str) -> None:
    for sink in SINKS:
        wait_for(
            f"{sink}-{instance} runs",
            lambda s=sink: beat(running, s, instance).state == "running",
        )


def beat(running: Pipeline, sink: str, instance: str) -> Heartbeat:
    """The last heartbeat of a process that runs now."""
    name = f"{sink}-{instance}"
    pid = running.processes[name].pid

    def spoken() -> Heartbeat | None:
        with running.redis() as client:
            packed = client.get(worker_key(sink, f"{instance}-{sink}"))
        found = msgspec.json.decode(packed, type=Heartbeat) if packed else None
        return found if found is not None and found.pid == pid else None

    found: Heartbeat = wait_for(f"{name} speaks", spoken)
    return found


def fill_redis(running: Pipeline) -> None:
    """`noeviction`: it refuses to write, and what it has stays."""
    with running.redis() as client:
        client.config_set("maxmemory", 1)
        with pytest.raises(RedisError):
            client.set("any", 1)
        log = running.logs / "online-one.log"
        wait_for("the refusal is logged", lambda: "used memory > 'maxmemory'" in log.read_text())
        client.config_set("maxmemory", 0)


def give_back_an_older_redis(running: Pipeline, services: Services) -> None:
    """Its disk is put back to what it was some seconds ago, under running workers."""
    process, _ = services["redis"]
    directory = Path(process.spec.argv[process.spec.argv.index("--dir") + 1])
    kept = directory.with_name("kept")
    shutil.copytree(directory / "appendonlydir", kept)
    stores_more(running, "online")
    time.sleep(1.5)  # appendfsync everysec
    kill(process)
    shutil.rmtree(directory / "appendonlydir")
    shutil.copytree(kept, directory / "appendonlydir")
    process.start()
    process.wait_ready()
    ended = wait_for("one finds out", lambda: _ended(running, "online"))
    assert any("it lost its last writes" in _log(running, name) for name in ended)
    for name in ("online-one", "online-two"):
        if name in ended:
            running.processes.pop(name)
            running.start_worker("online", name.removeprefix("online-"))


def _ended(running: Pipeline, sink: str) -> list[str]:
    return [
        name
        for name, process in running.processes.items()
        if name.startswith(sink) and process.poll() is not None
    ]


def _log(running: Pipeline, name: str) -> str:
    return (running.logs / f"{name}.log").read_text()


def move_committed_offsets(running: Pipeline) -> None:
    """While no worker runs: for half of the partitions to the end, for the others to the start."""
    running.stop()
    running.produce("price", some_ticks(0))
    admin = AdminClient({"bootstrap.servers": running.settings.kafka})
    topic = running.topics[running.topic("price")]
    ends = running.ends()
    moved = [
        TopicPartition(topic.name, number, end if number % 2 else 0)
        for (topic_id, number), end in ends.items()
        if topic_id == topic.topic_id
    ]
    for sink in ("online", "offline"):
        group = f"{running.settings.group}-{sink}"
        request = [ConsumerGroupTopicPartitions(group, moved)]

        def done(request: Any = request, group: str = group) -> bool:
            try:
                altered = admin.alter_consumer_group_offsets(request)[group].result()
            except KafkaException:  # its members have not been forgotten yet
                return False
            return all(partition.error is None for partition in altered.topic_partitions)

        wait_for("the group is empty", done)
        running.start_worker(sink)


def some_ticks(number: int) -> list[tuple[bytes, bytes]]:
    """Of now, three of each symbol; `number` is the first one's."""
    now = time.time_ns() // 10**6
    made = [
        {"symbol": symbol, "price": 1 + i % 13, "ts": now, "seq": 10**9 + number + i}
        for i, symbol in enumerate(SYMBOLS * 3)
    ]
    return [(str(tick["symbol"]).encode(), json.dumps(tick).encode()) for tick in made]


@pytest.mark.timeout(300)
def test_paused_and_back_with_its_partitions(running: Pipeline) -> None:
    """What a worker remembers from before is not what is stored when its partitions return."""
    for sink in ("online", "offline"):
        running.start_worker(sink)
    running.produce("price", some_ticks(0))
    running.wait_drained("online", "offline")
    for sink in ("online", "offline"):
        running.processes[f"{sink}-one"].send_signal(signal.SIGSTOP)
    time.sleep(SESSION)
    for sink in ("online", "offline"):
        running.start_worker(sink, "two")
    running.produce("price", some_ticks(1000))
    running.wait_drained("online", "offline")
    for sink in ("online", "offline"):
        running.kill(f"{sink}-two")
    for sink in ("online", "offline"):
        running.processes[f"{sink}-one"].send_signal(signal.SIGCONT)
    running.produce("price", some_ticks(2000))
    running.wait_drained("online", "offline")
    assert assert_no_difference(running).looked["rejected ticks"] == 0
    assert all(process.poll() is None for process in running.processes.values())
