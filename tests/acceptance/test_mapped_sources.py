"""Topics of others, from Kafka to both stores and back: judged by the checker, and replayed."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import pytest

from pipelines.kafka.topics import ensure_topics
from tests.support.checks import assert_no_difference
from tests.support.pipeline import Pipeline, wait_for

SOURCES = """
[[source]]
name = "trades"
topic = "{prefix}.trades"
key = ["symbol"]
fields = [{{ name = "price" }}, {{ name = "size" }}]
where = {{ "data.e" = "trade" }}
partitioner = "crc32"
[source.map]
symbol = "data.s"
price = "data.p"
size = {{ path = "data.q", scale = 1e-8 }}
ts = "data.T"
seq = "data.t"

[[source]]
name = "spot"
topic = "{prefix}.spot"
key = ["venue", "symbol"]
fields = [{{ name = "price" }}, {{ name = "lot" }}]
items = "data"
where = {{ "^channel" = "trade", "@header.version" = "2" }}
message_key = "any"
partitioner = "any"
[source.map]
venue = "^venue"
lot = {{ value = 10 }}
ts = "@timestamp"

[[source]]
name = "spread"
topic = "{prefix}.spread"
key = ["symbol"]
fields = [{{ name = "price" }}]
message_key = "any"
partitioner = "any"
[source.map]
ts = "@timestamp"

[[feature]]
name = "trade_mean"
version = "1.0.0"
source = "trades"
expression = "mean(price, 3)"

[[feature]]
name = "spot_price"
version = "1.0.0"
source = "spot"
expression = "last(price)"

[[feature]]
name = "spread_price"
version = "1.0.0"
source = "spread"
expression = "last(price)"
"""


@pytest.mark.timeout(240)
def test_from_kafka_to_both_stores_and_back(running: Pipeline) -> None:
    with Path(running.settings.features).open("a") as file:
        file.write(SOURCES.format(prefix=running.prefix))
    ensure_topics(running.settings.kafka_connection, [running.topic("spot")], 1)
    told = running.run_tickwell("features", "apply", "--yes")
    spread = f"{running.topic('spread')} has 4 partitions, and its source spread declares"
    assert spread in told
    assert f"{running.topic('spot')} has" not in told
    running.start_both()
    chance, now = random.Random(4), time.time_ns() // 10**6

    def trade(number: int, **changes: Any) -> tuple[bytes, bytes]:
        symbol = chance.choice(["BTCUSDT", "ETHUSDT", "ÜSDT"])
        data = {"e": "trade", "s": symbol, "t": f"id-{number}", "p": f"{chance.uniform(1, 9):.8f}"}
        data |= {"q": str(chance.randint(1, 10**12)), "T": now + number, **changes}
        return symbol.encode(), json.dumps({"stream": "x", "data": data}).encode()

    trades: list[tuple[bytes | None, bytes | None]] = [trade(number) for number in range(200)]
    trades += [trades[-1], (b"BTCUSDT", None), (b"BTCUSDT", b"\0\0\0\0\1x"), trade(900, p="x")]
    trades += [trade(number, e="depthUpdate", p=[]) for number in range(30)]
    by_crc32 = running.producer(partitioner="consistent_random")
    running.produce("trades", trades, by_crc32)
    running.produce("trades", [trade(number) for number in range(300, 320)])  # by murmur2
    array = [{"symbol": symbol, "price": 2.5} for symbol in ("A", "B", "A")]
    for channel in ("trade", "heartbeat", "trade"):
        message = {"channel": channel, "venue": "X", "data": [*array, {"symbol": "A"}]}
        running.produce(
            "spot",
            [(None, json.dumps(message).encode())],
            headers=[("version", b"2")],
        )

    # Producers spread messages without a key; a home that each store chose would be two homes.
    values = [json.dumps({"symbol": f"S{n % 3}", "price": n}).encode() for n in range(40)]
    keyless = running.producer(**{"sticky.partitioning.linger.ms": 0})
    running.produce("spread", [(None, value) for value in values], keyless)
    running.produce("spread", [(b"one", value) for value in values])
    assert len({record.partition for record in running.records(running.topic("spread"))}) > 1

    counted = "SELECT count(*) FROM tickwell.feature_rows"
    rejected = "SELECT reason, count(*)::int FROM tickwell.rejected_ticks GROUP BY 1"
    wait_for("rows are stored", lambda: running.query(counted)[0][0] >= 246)
    reasons = dict(running.query(rejected))
    assert reasons["malformed"] == 4
    assert reasons["duplicate"] == reasons["unknown-field-type"] == 1
    assert reasons["wrong-partition"] >= 5
    assert reasons["key-mismatch"] == 40

    def counts() -> list[tuple[int, int]]:
        return [(beat.rows, beat.passed_over) for beat in running.heartbeats()]

    def expected() -> list[tuple[int, int]]:
        return [(running.query(counted)[0][0], 31)] * 2

    try:
        wait_for("both workers say so", lambda: counts() == expected())
    except AssertionError:
        assert counts() == expected()
    for beat in running.heartbeats():
        assert any(warning.startswith(spread) for warning in beat.warnings)
    looked = assert_no_difference(running).looked
    assert looked["rows"] == running.query(counted)[0][0]
    ids = running.query(
        "SELECT DISTINCT seq_text FROM tickwell.feature_rows WHERE seq_text LIKE 'id-1__'"
    )
    assert len(ids) == 100
    running.stop()
    told = running.run_tickwell("replay")
    assert " 0 of them new" in told
    assert "passed over: 31" in told
