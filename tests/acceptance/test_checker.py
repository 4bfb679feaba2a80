"""The checker: a drained run is clean, and every kind of corruption is found."""

from __future__ import annotations

import json
import random
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from pipelines.kafka.topics import ensure_topics
from tests.checker.__main__ import main
from tests.checker.check import Run, check
from tests.checker.findings import Findings
from tests.checker.packed import (
    chunks_key,
    closed_key,
    members_key,
    read_row,
    rows_key,
    states_key,
    watermark_key,
)
from tests.checker.topics import Kafka, Message
from tests.support.pipeline import Pipeline, wait_for

SYMBOLS = ("A", "B", "Ü")
TABLES = (
    "tickwell.feature_rows",
    "tickwell.rejected_ticks",
    "tickwell.entities",
    "tickwell.watermarks",
)


@pytest.fixture
def drained(running: Pipeline) -> Pipeline:
    """A few hundred ticks of every kind, stored and relayed."""
    chance = random.Random(1)
    now = time.time_ns() // 10**6
    prices: list[tuple[bytes | None, bytes | None]] = []
    for number in range(300):
        symbol = chance.choice(SYMBOLS)
        tick: dict[str, Any] = {"symbol": symbol, "price": chance.uniform(-1, 9)}
        tick |= {"ts": now + number // 3, "seq": number // 2}
        if chance.random() < 0.03:
            tick["op"] = "reset"
        value = json.dumps([tick, tick] if chance.random() < 0.1 else tick, ensure_ascii=False)
        prices.append((symbol.encode(), value.encode()))
    prices += [(b"A", None), (b"A", b"{"), (b"A", b'[1 , {"symbol":"A","price":[1,"]"],"ts":1}]')]
    positions = [
        (b"P1", json.dumps({"portfolio": "P1", "symbol": s, "quantity": 2, "ts": now}).encode())
        for s in SYMBOLS
    ]
    closed = {"portfolio": "P1", "symbol": SYMBOLS[0], "op": "close", "ts": now}
    positions.append((b"P1", json.dumps(closed).encode()))
    running.start_worker("online")
    running.start_worker("offline")
    running.produce("price", prices)
    running.produce("position", positions)
    running.wait_drained("online", "offline")
    waiting = "SELECT 1 FROM tickwell.rejected_ticks WHERE relayed_at IS NULL"
    wait_for("everything is relayed", lambda: not running.query(waiting))
    running.stop()
    return running


def found(run: Pipeline, *observations: Path, rejected_topic: str = "") -> Findings:
    settings = run.settings
    return check(
        Run(
            kafka=settings.kafka,
            redis=settings.redis,
            postgres=settings.postgres,
            rejected_topic=rejected_topic or settings.rejected_topic,
            observations=observations,
        ),
        bars=False,
    )


def execute(run: Pipeline, statement: str, *arguments: Any) -> None:
    connection = psycopg2.connect(run.settings.postgres)
    with connection, connection.cursor() as cursor:
        cursor.execute(statement, arguments)
    connection.close()


OF_POSTGRES = (
    {
        "row lost": """
            DELETE FROM tickwell.feature_rows WHERE ctid = (SELECT ctid FROM tickwell.feature_rows
                WHERE entity = 'B' ORDER BY event_time OFFSET 7 LIMIT 1)""",
        "row differs": """
            UPDATE tickwell.feature_rows SET known_at = known_at + 1 WHERE ctid = (
                SELECT ctid FROM tickwell.feature_rows WHERE entity = 'A' LIMIT 1)""",
        "rejected tick lost": """
            DELETE FROM tickwell.rejected_ticks WHERE ctid = (
                SELECT ctid FROM tickwell.rejected_ticks LIMIT 1)""",
        "accepted and rejected": """
            INSERT INTO tickwell.rejected_ticks (
                topic_id, partition, "offset", index, topic, reason, detail, known_at)
            SELECT topic_id, partition, "offset", index, '', 'late', '', 0
            FROM tickwell.feature_rows LIMIT 1""",
        "home": "DELETE FROM tickwell.entities WHERE entity = 'A'",
    },
    {
        "row twice": """
            INSERT INTO tickwell.feature_rows SELECT (row).* FROM (
                SELECT jsonb_populate_record(stored, '{"sequence": 900}') AS row
                FROM tickwell.feature_rows AS stored WHERE entity = 'B' LIMIT 1) AS made""",
        "rejected tick differs": """
            UPDATE tickwell.rejected_ticks SET value = value || '\\x20'::bytea WHERE ctid = (
                SELECT ctid FROM tickwell.rejected_ticks WHERE value IS NOT NULL LIMIT 1)""",
        "unexplained row": """
            UPDATE tickwell.feature_rows SET "offset" = 100000 WHERE ctid = (
                SELECT ctid FROM tickwell.feature_rows WHERE entity = 'Ü' LIMIT 1)""",
        "unexplained rejection": """
            INSERT INTO tickwell.rejected_ticks (
                topic_id, partition, "offset", index, topic, reason, detail, known_at)
            SELECT topic_id, partition, "offset" + 100000, index, '', 'late', '', 0
            FROM tickwell.rejected_ticks LIMIT 1""",
        "watermark": "UPDATE tickwell.watermarks SET next_offset = next_offset - 1",
    },
)


@pytest.mark.timeout(400)
def test_every_corruption_is_found(drained: Pipeline, tmp_path: Path) -> None:
    clean = found(drained)
    assert clean.examples == {}
    assert clean.looked["accepted ticks"] == clean.looked["rows"] > 200
    assert clean.looked["rejected ticks"] == clean.looked["relayed"] > 5
    assert clean.looked["rows in Redis"] == clean.looked["window states"] == 6
    assert (clean.looked["members"], clean.looked["last closes"]) == (2, 1)

    for corruptions in OF_POSTGRES:
        with saved(drained):
            for statement in corruptions.values():
                execute(drained, statement)
            assert corruptions.keys() <= found(drained).differences.keys()
    with saved(drained):
        flip_a_bit(drained)
        assert found(drained).differences == {"value differs": 1}
    assert "not relayed" in found(drained, rejected_topic=drained.topic("volume")).differences
    assert found(drained, rejected_topic=relayed_otherwise(drained)).differences == {
        "relayed differently": 2,
        "relayed twice, differently": 1,
        "relayed without a tick": 1,
    }
    corrupt_redis(drained)
    observe(drained, tmp_path / "seen.jsonl")
    assert found(drained).clean


@contextmanager
def saved(run: Pipeline) -> Iterator[None]:
    """The tables are put back afterwards."""
    for place, table in enumerate(TABLES):
        execute(run, f"CREATE TABLE saved_{place} AS TABLE {table}")
    try:
        yield
    finally:
        for place, table in enumerate(TABLES):
            execute(
                run,
                f"DELETE FROM {table}; INSERT INTO {table} TABLE saved_{place};"
                f"DROP TABLE saved_{place}",
            )


def relayed_otherwise(run: Pipeline) -> str:
    """Another topic with what was published, but for a value, a reason, a copy and a message."""
    kafka = Kafka(run.settings.kafka)
    published = list(kafka.messages(kafka.describe(run.settings.rejected_topic)))
    topic = f"{run.prefix}.otherwise"
    ensure_topics(run.settings.kafka_connection, [topic], 1)
    producer = run.producer()

    def send(message: Message, **changes: Any) -> None:
        record = message.record
        given = {"key": record.key, "value": record.value, "headers": message.headers}
        producer.produce(topic, **given | changes)

    other_value, other_reason, twice, *others = published
    send(other_value, value=b"{}")
    send(other_reason, headers={**other_reason.headers, "reason": "none"})
    send(twice)
    send(twice, value=b"{}")
    for message in others:
        send(message)
    topic_id = (others[0].record.key or b"").split(b"/")[0]
    send(others[0], key=topic_id + b"/0/100000/0")
    assert producer.flush(60) == 0
    return topic


def flip_a_bit(run: Pipeline) -> None:
    """One bit of a mean; the last few are within the tolerance of the arithmetic."""
    ((topic, partition, offset, values),) = run.query(
        'SELECT topic_id, partition, "offset", features FROM tickwell.feature_rows'
        " WHERE entity = 'A' AND features[2] <> 'NaN' AND index = 0"
        " ORDER BY event_time DESC LIMIT 1 OFFSET 3"
    )
    (bits,) = struct.unpack(">q", struct.pack(">d", values[1]))
    (other,) = struct.unpack(">d", struct.pack(">q", bits ^ 1 << 20))
    execute(
        run,
        "UPDATE tickwell.feature_rows SET features[2] = %s"
        ' WHERE topic_id = %s AND partition = %s AND "offset" = %s AND index = 0',
        *(other, topic, partition, offset),
    )


def corrupt_redis(run: Pipeline) -> None:
    """Rows, states, members and watermarks of Redis, each put back afterwards."""
    topic_id = run.topics[run.topic("price")].topic_id
    with run.redis() as client:
        rows, states, chunks = [of("price", 0) for of in (rows_key, states_key, chunks_key)]
        members, closed = members_key("position", "P1"), closed_key("position", "P1")
        one_later = (int.from_bytes(client.get(closed)[:8], "big") + 1).to_bytes(8, "big")
        places = [watermark_key(topic_id, number) for number in range(4)]
        watermark = next(key for key in places if client.exists(key))
        served, state = client.hgetall(rows), client.hgetall(states)
        newest = {symbol: read_row(served[symbol.encode()]) for symbol in SYMBOLS}
        chunk = min(client.hkeys(chunks))
        # as if the newest tick were of 1970, so that it would not be known when it comes again
        newest_time = struct.pack("<q", newest["B"].event_time)
        forgotten = state[b"B"].replace(newest_time, bytes(8))

        def behind(symbol: str) -> bytes:
            """The row as if it were of the offset before, all else as it is."""
            row: bytes = served[symbol.encode()]
            return row[:49] + (newest[symbol].origin[2] - 1).to_bytes(8, "big") + row[57:]

        last, count = served["Ü".encode()], state["Ü".encode()]
        groups: list[dict[str, Callable[[], Any]]] = [
            {
                "missing in Redis": lambda: client.hdel(rows, "A"),
                "Redis is not the newest row": lambda: client.hset(rows, "B", behind("B")),
                "window state": lambda: client.hset(
                    states, "Ü", count[:40] + struct.pack(">q", 9) + count[48:]
                ),
                "members": lambda: client.sadd(members, "A"),
                "last close": lambda: client.setrange(closed, 0, one_later),
                "unexplained in Redis": lambda: client.hset(rows, "Z", served[b"A"]),
                "watermark": lambda: client.incr(watermark),
            },
            {
                "corrupt in Redis": lambda: client.hset(rows, "A", served[b"A"][:-1]),
                "window state": lambda: client.hset(states, "B", forgotten),
                "members": lambda: client.srem(members, "B"),
                "last close": lambda: client.delete(closed),
                "bits differ": lambda: client.hset(rows, "Ü", last[:-1] + bytes([last[-1] ^ 1])),
            },
            {"corrupt in Redis": lambda: client.hdel(chunks, chunk)},
            {"unexplained in Redis": lambda: client.hset(chunks, "A\x1f#0", b"")},
        ]
        kept = [rows, states, chunks, members, closed, watermark]
        for changes in groups:
            dumps = {key: client.dump(key) for key in kept}
            for change in changes.values():
                change()
            assert changes.keys() == found(run).differences.keys()
            for key, dump in dumps.items():
                client.restore(key, 0, dump, replace=True)


def observe(run: Pipeline, file: Path) -> None:
    """What a reader saw, true and false."""
    rows = run.query(
        "SELECT event_time, sequence, features, known_at FROM tickwell.feature_rows"
        " WHERE entity = 'B' AND get_byte(status, 0) = 0 ORDER BY event_time, sequence"
    )
    first, last = rows[0], rows[-1]
    with run.redis() as client:
        served = client.hget(rows_key("price", 0), "B")

    def seen(stored: Any, at: int, **changes: Any) -> dict[str, Any]:
        made = {
            "at": at,
            "until": at + 1000,
            "reader": "one",
            "via": "http",
            "source": "price",
            "entity": ["B"],
            "feature": "current_price",
            "version": "1.0.0",
            "event_time": stored[0],
            "sequence": None,
            "value": stored[2][0],
            "status": "ok",
            "http": 200,
            "row": None,
        }
        return made | changes

    fresh = first[3] + 10**9
    late = last[3] + 10**9
    held = dict(
        run.query(
            "SELECT entity, max(event_time) FROM tickwell.feature_rows"
            " WHERE entity ~ '^P1' GROUP BY entity"
        )
    )

    def closed(symbol: str) -> dict[str, Any]:
        position = {"source": "position", "entity": ["P1", symbol], "feature": "position_size"}
        when = held[f"P1\x1f{symbol}"]
        return seen(first, late, event_time=when, value=None, status="missing", **position)

    truth = [
        closed(SYMBOLS[0]),
        seen(first, fresh),
        seen(last, late),
        seen(last, late + 1, feature=None, value=None, via="redis", status="stored",
             sequence=last[1], row=served.hex()),
        seen(last, last[0] + 61 * 10**9, status="stale"),
        seen(last, late + 2, status=None, http=503, event_time=None, value=None),
    ]  # fmt: skip
    lies = {
        "stepped back": [seen(last, fresh), seen(first, fresh + 10**6)],
        "value without a row": [seen(last, late, value=last[2][0] + 1)],
        "stale served as ok": [seen(last, last[0] + 61 * 10**9)],
        "behind served as ok": [seen(first, first[3] + 30 * 10**9)],
    }
    gone = seen(last, late + 10**6, status="missing", value=None, event_time=None)

    def tell(observations: list[dict[str, Any]]) -> Findings:
        file.write_text("".join(json.dumps(each) + "\n" for each in observations))
        return found(run, file)

    honest = tell(truth)
    assert honest.examples == {}
    assert honest.looked["ok, held against age and lag"] == 2
    for kind, observations in lies.items():
        assert set(tell(observations).differences) == {kind}, kind
    assert set(tell([seen(last, late), gone]).differences) == {"stepped back"}
    assert set(tell([closed(SYMBOLS[1])]).differences) == {"value without a row"}
    overlapping = [seen(last, late, until=late + 10**7), seen(first, late + 1)]
    assert "stepped back" not in tell(overlapping).differences


@pytest.mark.timeout(240)
def test_the_command_tells_a_person(drained: Pipeline, capsys: pytest.CaptureFixture[str]) -> None:
    settings = drained.settings
    arguments = ["--kafka", settings.kafka, "--redis", settings.redis]
    arguments += ["--rejected-topic", settings.rejected_topic, "--postgres", settings.postgres]
    assert main(arguments) == 0
    assert "no difference" in capsys.readouterr().out
    execute(drained, "DELETE FROM tickwell.feature_rows WHERE entity = 'B'")
    assert main(arguments) == 1
    printed = capsys.readouterr().out
    assert "row lost" in printed
    assert f"{drained.topic('price')}[" in printed
    assert main([*arguments, "--topic", "price=none"]) == 2
    assert "cannot be checked" in capsys.readouterr().out
