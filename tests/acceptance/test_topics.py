"""Topics that are recreated or get more partitions under running workers.

The rows of a recreated topic are compared here: the checker has no log that explains those of the
earlier incarnation, nor the windows that continue from it.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable

import psutil
import pytest
from confluent_kafka.admin import AdminClient, NewPartitions

from pipelines.errors import PipelineError
from pipelines.kafka.topics import ensure_topics
from registry.formats.row import unpack
from tests.support.brokers import needs_kafka
from tests.support.checks import assert_no_difference
from tests.support.pipeline import Pipeline, wait_for
from tests.support.stored import stored_row

pytestmark = needs_kafka("Tansu has an error of its own for a topic that is gone")


def ticks(first: int, n: int) -> list[tuple[bytes, bytes]]:
    now = time.time_ns() // 10**6
    made = [{"symbol": "A", "price": i, "ts": now, "seq": i} for i in range(first, first + n)]
    return [(b"A", json.dumps(tick).encode()) for tick in made]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("meanwhile", ["at work", "off"])
def test_a_recreated_topic_is_read_from_its_beginning(running: Pipeline, meanwhile: str) -> None:
    """Windows continue, values do not step back, and every tick of the new topic has its row."""
    topic = running.topic("price")
    running.start_worker("online")
    running.start_worker("offline")
    running.produce("price", ticks(0, 30))
    running.wait_drained("online", "offline")
    if meanwhile == "off":
        running.stop()
    recreate(running, topic)
    for name in ("online", "offline"):
        if meanwhile == "at work":
            process = running.processes.pop(f"{name}-one")
            assert process.wait(60) == 1  # it logs why and ends; `up` and compose restart it
            assert "was deleted and recreated" in (running.logs / f"{name}-one.log").read_text()
        running.start_worker(name)
    running.produce("price", ticks(30, 10))
    running.wait_drained("online", "offline")
    rows = running.query(
        "SELECT fields[1], features[2] FROM tickwell.feature_rows ORDER BY event_time, sequence"
    )
    assert [price for price, _ in rows] == list(range(40))
    assert rows[-1][1] == 37  # the mean of the last five
    with running.redis() as client:
        row = unpack(stored_row(client, "price", "A"))
    assert (row.origin.topic_id, row.origin.offset) == (running.topics[topic].topic_id, 9)


@pytest.mark.timeout(240)
def test_a_topic_is_recreated_while_its_workers_are_paused(running: Pipeline) -> None:
    """It has more records than the old one had, so that a fetch at the old offsets is answered."""
    topic = running.topic("price")
    for name in ("online", "offline"):
        running.start_worker(name)
    running.produce("price", ticks(0, 30))
    running.wait_drained("online", "offline")
    old = running.topics[topic].topic_id
    for name in ("online", "offline"):
        running.processes[f"{name}-one"].send_signal(signal.SIGSTOP)
    recreate(running, topic)  # at once: no look-up has had time to expire
    running.produce("price", ticks(30, 60))
    for name in ("online", "offline"):
        process = running.processes.pop(f"{name}-one")
        process.send_signal(signal.SIGCONT)
        assert process.wait(60) == 1
        assert "was deleted and recreated" in (running.logs / f"{name}-one.log").read_text()
        running.start_worker(name)
    running.wait_drained("online", "offline")
    rows = running.query(
        'SELECT topic_id = %s::uuid, "offset", fields[1] FROM tickwell.feature_rows'
        " ORDER BY event_time, sequence",
        old.hex(),
    )
    assert rows == [
        *((True, offset, offset) for offset in range(30)),
        *((False, offset, 30 + offset) for offset in range(60)),
    ]
    with running.redis() as client:
        row = unpack(stored_row(client, "price", "A"))
        assert client.get(f"tw:3:watermark:{old.hex()}:{row.origin.partition}") == b"30"
    assert (row.origin.topic_id, row.origin.offset) == (running.topics[topic].topic_id, 59)


STOPPED_BEFORE_IT_FILLS = """
import os, signal
from pipelines.rebuild.rebuild import Rebuild
from tickwell.cli import main

fill = Rebuild.fill

def stopped(*arguments):
    Rebuild.fill = fill
    os.kill(os.getpid(), signal.SIGSTOP)
    return fill(*arguments)

Rebuild.fill = stopped
main()
"""


@pytest.mark.timeout(240)
def test_a_topic_is_recreated_while_its_worker_starts(running: Pipeline) -> None:
    """A rebuild takes minutes, and the topics were looked up before it."""
    topic = running.topic("price")
    running.start_worker("offline")
    running.produce("price", ticks(0, 30))
    running.wait_drained("offline")
    running.stop()
    ((old, partition),) = {key for key, end in running.ends().items() if end == 30}
    arguments = ("worker", "--sink", "online", "--instance", "one")
    online = running.start("online-one", *arguments, program=("-c", STOPPED_BEFORE_IT_FILLS))
    state = psutil.Process(online.pid)
    wait_for("it is stopped", lambda: state.status() == psutil.STATUS_STOPPED)
    recreate(running, topic)
    running.produce("price", ticks(30, 60))
    online.send_signal(signal.SIGCONT)
    assert online.wait(60) == 1
    assert "was deleted and recreated" in (running.logs / "online-one.log").read_text()
    with running.redis() as client:
        assert client.get(f"tw:3:watermark:{old.hex()}:{partition}") == b"30"


@pytest.mark.timeout(240)
def test_more_partitions_stop_the_workers(running: Pipeline) -> None:
    """Those of both sinks."""
    sinks = ("online", "offline")
    for sink in sinks:
        running.start_worker(sink)
    running.produce("price", ticks(0, 5))
    running.wait_drained(*sinks)
    topic = running.topic("price")
    admin = AdminClient({"bootstrap.servers": running.settings.kafka})
    admin.create_partitions([NewPartitions(topic, 6)])[topic].result()
    for restart in (True, False):  # first those that run, then those that are started afterwards
        for sink in sinks:
            assert running.processes.pop(f"{sink}-one").wait(60) == 1
            log = running.logs / f"{sink}-one.log"
            assert f"{topic} had 4 partitions and has 6" in log.read_text()
            log.write_text("")
            if restart:
                running.start_worker(sink)
    assert_no_difference(running)


def recreate(running: Pipeline, topic: str) -> None:
    old = running.topics[topic].topic_id
    admin = AdminClient({"bootstrap.servers": running.settings.kafka})
    admin.delete_topics([topic])[topic].result()

    def recreated() -> bool:
        return ensure_topics(running.settings.kafka_connection, [topic], 4)[topic].topic_id != old

    wait_for("the topic exists again", lambda: _try(recreated))


def _try(attempt: Callable[[], bool]) -> bool:
    try:
        return attempt()
    except PipelineError:  # while the broker still deletes it
        return False
