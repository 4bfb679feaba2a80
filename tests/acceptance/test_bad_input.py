"""What is not a tick: rejected for the right reason, stored once, relayed; the stream continues."""

from __future__ import annotations

import json
import random
import time
import uuid
from typing import Any

import pytest
from aiokafka.partitioner import DefaultPartitioner
from confluent_kafka import KafkaException

from pipelines.ticks.rejection_reasons import REASONS
from tests.support.brokers import needs_kafka
from tests.support.checks import assert_stores_match, expected
from tests.support.pipeline import Pipeline, wait_for


def tick(**changes: Any) -> bytes:
    """A good tick of AAPL, with changes; None leaves a field out."""
    now = time.time_ns() // 10**6
    fields = {"symbol": "AAPL", "price": 1.5, "ts": now, **changes}
    return json.dumps({k: v for k, v in fields.items() if v is not None}).encode()


@pytest.mark.timeout(240)
def test_every_reason(running: Pipeline) -> None:
    running.start_worker("online")
    running.start_worker("offline")
    now = time.time_ns() // 10**6
    running.produce(
        "price",
        [
            (b"AAPL", tick(ts=now, seq=1)),
            (b"AAPL", b'{"symbol":"AAPL","price":' + b" " * 262_144 + b"1}"),
            (b"AAPL", tick(price=None)),
            (b"AAPL", tick(op="cancel")),
            (b"AAPL", tick(price="1.5 ")),
            (b"AAPL", tick(price=float("nan"))),
            (b"AAPL", b'{"symbol":"AAPL","price":1e999,"ts":1700000000000}'),
            (b"AAPL", tick(ts=-1)),
            (b"MSFT", tick()),
            (b"AAPL", tick(ts=now + 60_000)),
            (b"AAPL", tick(ts=now, seq=1)),
            (b"AAPL", tick(ts=now - 5_000)),
            (b"AAPL", b"[" + tick(ts=now, seq=2) + b"," + tick(price=[]) + b"]"),
        ],
    )
    running.wait_drained("online", "offline")  # so that its home is settled
    home = DefaultPartitioner()(b"AAPL", [0, 1, 2, 3], [0, 1, 2, 3])
    running.produce("price", [(b"AAPL", tick())], partition=(home + 1) % 4)
    running.produce("volume", [(b"AAPL", tick(price=None, volume=0))])
    assert set(expected_reasons(running)) == set(REASONS)
    running.wait_drained("online", "offline")
    homes = {("AAPL",): home}
    assert_stores_match(running, "price", expected(running, "price", homes))
    wait_for("all relayed", lambda: len(running.records(running.settings.rejected_topic)) == 14)


def expected_reasons(running: Pipeline) -> list[str]:
    """The reasons that are stored."""
    running.wait_drained("offline")
    return [row[0] for row in running.query("SELECT DISTINCT reason FROM tickwell.rejected_ticks")]


@pytest.mark.timeout(300)
def test_ten_thousand_fuzzed_messages(running: Pipeline) -> None:
    """Each is stored once, relayed with its bytes, and good ticks in between go through."""
    chance = random.Random(11)
    messages = []
    for number in range(10_000):
        message = bytearray(tick(seq=number))
        for _ in range(chance.randint(1, 6)):
            message[chance.randrange(len(message))] = chance.randrange(256)
        messages.append((b"AAPL", bytes(message)))
        if number % 100 == 0:
            messages.append((b"GOOD", tick(symbol="GOOD", seq=number)))
    running.start_worker("online")
    running.start_worker("offline")
    running.produce("price", messages)
    running.wait_drained("online", "offline")
    found = expected(running, "price")
    assert len(found.rows["GOOD",]) == 100
    assert len(found.rejected) > 5_000
    assert_stores_match(running, "price", found)
    topic = running.settings.rejected_topic

    def relayed() -> dict[bytes, bytes]:
        return {record.key: record.value for record in running.records(topic)}

    wait_for("all are relayed", lambda: len(relayed()) == len(found.rejected))
    rows = running.query(
        'SELECT topic_id::text, partition, "offset", index, value FROM tickwell.rejected_ticks'
    )
    assert relayed() == {"/".join(map(str, row[:4])).encode(): bytes(row[4]) for row in rows}


@pytest.mark.timeout(240)
@needs_kafka("Tansu gives the records of aborted transactions")
def test_all_kinds_of_producers(running: Pipeline) -> None:
    """Every compression, transactions that commit and abort, and another partitioner."""
    running.start_worker("online")
    running.start_worker("offline")
    sequence = iter(range(10_000))
    for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
        sender = running.producer(**{"compression.type": codec})
        running.produce("price", [(b"AAPL", tick(seq=next(sequence))) for _ in range(50)], sender)
    transactional = running.producer(**{"transactional.id": str(uuid.uuid4())})
    transactional.init_transactions()
    for number in range(12):
        transactional.begin_transaction()
        if number % 4:  # every fourth is empty: two markers stand side by side
            running.produce(
                "price", [(b"AAPL", tick(seq=next(sequence))) for _ in range(5)], transactional
            )
        if number % 2:
            transactional.abort_transaction()
        else:
            transactional.commit_transaction()
    with pytest.raises(KafkaException):
        transactional.commit_transaction()
    running.wait_drained("online", "offline")
    # librdkafka's own partitioner puts most symbols elsewhere
    symbols = [f"SYM{number}" for number in range(24)]
    mixed = running.producer(partitioner="consistent_random")
    running.produce("price", [(s.encode(), tick(symbol=s)) for s in symbols], mixed)
    running.wait_drained("online", "offline")
    # it came first, and locks no symbol away from those that are right
    running.produce("price", [(s.encode(), tick(symbol=s)) for s in symbols])
    running.wait_drained("online", "offline")
    found = expected(running, "price")
    assert list(found.rejected.values()).count("wrong-partition") >= 8
    assert all(len(found.rows[symbol,]) in (1, 2) for symbol in symbols)
    ((detail,),) = running.query(
        "SELECT DISTINCT substring(detail, 'seems to use.*?(crc32 [(].*?[)])')"
        " FROM tickwell.rejected_ticks WHERE reason = 'wrong-partition'"
    )
    assert detail == "crc32 (librdkafka's default)"
    assert len(found.rows["AAPL",]) == 5 * 50 + 3 * 5
    assert_stores_match(running, "price", found)
    # a replay finds each entity's home, and rejects what live rejected
    assert " 0 of them new" in running.run_tickwell("replay")
    assert_stores_match(running, "price", found)
