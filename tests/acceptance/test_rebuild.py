"""FLUSHALL, after which only Postgres has the values: Redis is rebuilt, and no value steps back."""

from __future__ import annotations

import json
import time
from itertools import chain
from pathlib import Path
from typing import Any

import httpx
import psycopg2
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from pipelines.kafka.topics import Topic
from registry.formats.redis_keys import rows_key, watermark_key
from tests.oracle.messages import Record
from tests.support.brokers import must_delete_records
from tests.support.checks import assert_no_difference, assert_stores_match, expected
from tests.support.load import SYMBOLS, load, progress, reader
from tests.support.pipeline import Pipeline, wait_for
from tests.support.served import health
from tests.support.stored import all_rows
from tickwell.embedded.ports import keep_port

ENTITIES = 20_000


def delete_beginning(running: Pipeline) -> list[Record]:
    """Delete what both stores have, as retention would; returns at least those records."""
    topic = running.topics[running.topic("price")]
    stored = wait_for("both have begun every partition", lambda: stored_by_both(running, topic))
    records = running.records(topic.name)
    admin = AdminClient({"bootstrap.servers": running.settings.kafka})
    wanted = [TopicPartition(topic.name, number, offset) for number, offset in stored.items()]
    for deleted in admin.delete_records(wanted).values():
        deleted.result()
    return records


def stored_by_both(running: Pipeline, topic: Topic) -> dict[int, int] | None:
    """Where both stores are in each partition, None where one has not begun."""
    offline = dict(
        running.query(
            "SELECT partition, next_offset FROM tickwell.watermarks WHERE topic_id = %s::uuid",
            topic.topic_id.hex(),
        )
    )
    with running.redis() as client:
        online = {n: client.get(watermark_key(topic.topic_id, n)) for n in range(topic.partitions)}
    stored = {n: min(int(online[n] or 0), offline.get(n, 0)) for n in online}
    return stored if all(stored.values()) else None


@pytest.mark.timeout(400)
def test_emptied_under_load_after_the_log_has_lost_its_beginning(running: Pipeline) -> None:
    must_delete_records()
    for sink in ("online", "offline"):
        running.start_worker(sink)
    with load(running, 200), reader(running, may_vanish=True) as steps_back:
        for sink in ("online", "offline"):
            wait_for("progress", lambda sink=sink: progress(running, sink) > 1000)
        deleted = delete_beginning(running)
        for _ in range(2):  # the second time when it has just begun, or is still at it
            with running.redis() as client:
                client.flushall()
            process = running.processes.pop("online-one")
            assert process.wait(60) == 1  # it says why and ends; `up` and compose start it again
            running.start_worker("online")
            wait_for("the worker makes progress", lambda: progress(running, "online"))
            before = progress(running, "online")
            wait_for("progress", lambda before=before: progress(running, "online") > before + 200)
    running.wait_drained("online", "offline")
    assert steps_back == []
    log = (running.logs / "online-one.log").read_text()
    assert "deleted by retention" not in log
    assert "rebuilding price from Postgres" in log
    # the next ticks' features are those of whole windows
    now = time.time_ns() // 10**6
    next_ticks: list[dict[str, Any]] = [
        {"symbol": symbol, "price": 7, "ts": now} for symbol in SYMBOLS
    ]
    running.produce("price", [(t["symbol"].encode(), json.dumps(t).encode()) for t in next_ticks])
    running.wait_drained("online", "offline")
    # the checker cannot judge a log that has lost its beginning; this knows the deleted records
    assert_stores_match(running, "price", expected(running, "price", deleted=deleted))


@pytest.mark.timeout(300)
def test_an_emptied_redis_is_noticed_without_a_tick_and_told(
    running: Pipeline, tmp_path: Path
) -> None:
    port = keep_port(tmp_path / "port")
    running.start("server", "serve", "--port", str(port))
    for sink in ("online", "offline"):
        running.start_worker(sink)
    running.produce("price", ticks(5))
    running.produce("position", [(b"P", position("E0")), (b"P", position("E1"))])
    running.wait_drained("online", "offline")
    wait_for("all is well", lambda: exposure(port) == (201, "ok"))
    holder = psycopg2.connect(running.settings.postgres)
    with holder.cursor() as cursor:
        cursor.execute(
            "SELECT inhrelid::regclass FROM pg_inherits"
            " WHERE inhparent = 'tickwell.feature_rows'::regclass"
        )
        for (partition,) in cursor.fetchall():  # a snapshot begins, and waits for its rows
            cursor.execute(f"LOCK TABLE {partition} IN ACCESS EXCLUSIVE MODE")
        with running.redis() as client:
            client.flushall()
        assert running.processes.pop("online-one").wait(60) == 1
        running.start_worker("online")

        def reported() -> bool:
            beats = health(port).get("workers", {}).get("online", [])
            return any("rebuilding" in beat["error"] for beat in beats)

        wait_for("the rebuild is reported", reported)
        assert health(port)["status"] == "degraded"
        assert exposure(port) == (None, "missing")
    holder.rollback()
    holder.close()
    wait_for("all is well again", lambda: exposure(port) == (201, "ok"))
    wait_for("the rebuild has ended", lambda: health(port)["status"] == "ok")
    assert_no_difference(running)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_killed_while_it_rebuilds_and_two_at_once(running: Pipeline) -> None:
    """Twenty thousand entities, some of them with full windows, which continue unchanged."""
    for sink in ("online", "offline"):
        running.start_worker(sink)
    running.produce("price", ticks(ENTITIES))
    running.produce("price", ticks(ENTITIES, 1))
    more = [ticks(ENTITIES, number, step=500) for number in range(2, 40)]
    running.produce("price", list(chain(*more)))
    running.wait_drained("online", "offline")
    before = dump(running)
    online = running.processes.pop("online-one")
    online.terminate()
    online.wait(30)
    symbols = [f"E{number}" for number in range(0, ENTITIES, 50)]
    with running.redis() as client, reader(running, symbols, may_vanish=True) as steps_back:
        client.flushall()
        for number, share in enumerate((0.0, 0.3, 0.6), 1):
            name = f"rebuild-{number}"
            running.start(name, "rebuild-online")
            at, rows = max(1, int(ENTITIES * share)), rows_key("price", 0)
            wait_for("some are restored", lambda at=at, rows=rows: client.hlen(rows) > at)
            running.kill(name)
            assert client.hlen(rows) < ENTITIES
        two = [running.start(f"both-{number}", "rebuild-online") for number in range(2)]
        running.start_worker("online")  # while they work
        assert [process.wait(90) for process in two] == [0, 0]
        for number in range(2):
            running.processes.pop(f"both-{number}")
        wait_for("all are restored", lambda: client.hlen(rows_key("price", 0)) >= ENTITIES)
    assert dump(running) == before
    assert steps_back == []
    running.produce("price", ticks(ENTITIES, 40))
    running.wait_drained("online", "offline")
    assert assert_no_difference(running).looked["window states"] == ENTITIES
    output = running.run_tickwell("rebuild-online", "--source", "price")
    assert "20,000 entities in Postgres, 0 of them restored" in output


def dump(running: Pipeline) -> dict[bytes, bytes]:
    """Every row that is served, to the byte."""
    with running.redis() as client:
        return all_rows(client, "price")


def ticks(n: int, number: int = 0, step: int = 1) -> list[tuple[bytes, bytes]]:
    """The tick of some number of every entity, or of every `step`-th of `n`."""
    now = time.time_ns() // 10**6
    made: list[dict[str, Any]] = [
        {"symbol": f"E{i}", "price": 100 + i % 7 + number * number, "ts": now, "seq": number}
        for i in range(0, n, step)
    ]
    return [(tick["symbol"].encode(), json.dumps(tick).encode()) for tick in made]


def position(symbol: str) -> bytes:
    tick = {"portfolio": "P", "symbol": symbol, "quantity": 1, "ts": time.time_ns() // 10**6}
    return json.dumps(tick).encode()


def exposure(port: int) -> tuple[float | None, str]:
    question = {"features": ["portfolio_exposure"], "entities": [{"portfolio": "P"}]}
    try:
        answer = httpx.post(f"http://127.0.0.1:{port}/features/batch", json=question, timeout=10)
    except httpx.HTTPError as error:  # while it starts
        return None, str(error)
    if answer.status_code != 200:
        return None, answer.text
    (entity,) = answer.json()["results"]
    value = entity["features"]["portfolio_exposure"]
    return value["value"], value["status"]
