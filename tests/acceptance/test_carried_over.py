"""Positions that never tick again, and a feature of them that is recorded at work."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from registry import catalog as recorded
from registry.database.engine import connect
from registry.lifecycle import coverage
from serving.app import ServerOptions, create_app
from tests.support.checks import assert_no_difference
from tests.support.pipeline import Pipeline, wait_for
from tests.support.running_server import running as serving

BOTH = ("online", "offline")


def positions(n: int) -> list[tuple[bytes, bytes]]:
    """Messages of so many positions, each of two ticks; each tenth is closed with the second."""
    now, made = time.time_ns() // 10**6, []
    for number in range(2 * n):
        index = number % n
        tick: dict[str, Any] = {"portfolio": f"P{index % 40}", "symbol": f"S{index}"}
        tick |= {"quantity": number - n / 2, "ts": now + number // n, "seq": number}
        if number >= n and index % 10 == 0:
            tick["op"] = "close"
        made.append((tick["portfolio"].encode(), json.dumps(tick).encode()))
    return made


def declare(running: Pipeline, name: str, version: str, expression: str) -> None:
    """Have the file declare one version more of the positions, and record it."""
    file = Path(running.settings.features)
    feature = {"name": name, "version": version, "source": "position", "expression": expression}
    lines = [f'{key} = "{value}"' for key, value in feature.items()]
    file.write_text("\n".join([file.read_text(), "[[feature]]", *lines, ""]))
    running.run_tickwell("features", "apply", "--yes")


def newest_schema(running: Pipeline) -> int:
    ((newest,),) = running.query(
        "SELECT max(id) FROM tickwell.row_schemas WHERE source = 'position'"
    )
    return int(newest)


def behind(running: Pipeline, n: int) -> tuple[int, int]:
    """How many of so many entities have no row in the newest row schema, in Redis and Postgres."""
    schema = newest_schema(running)
    with running.redis() as client:
        rows = client.hvals("tw:3:{b0}:rows:position")
    online = sum(int.from_bytes(row[1:5], "big") < schema for row in rows)
    ((offline,),) = running.query(
        "SELECT count(DISTINCT entity) FROM tickwell.feature_rows WHERE schema_id = %s", schema
    )
    return n - len(rows) + online, n - int(offline)


def finished(running: Pipeline) -> bool:
    """Whether both stores say so of every partition of the positions."""
    schema, topic = newest_schema(running), running.topics[running.topic("position")]
    noted = running.query(
        "SELECT count(*) FROM tickwell.carried_over WHERE topic_id = %s::uuid AND schema_id = %s",
        topic.topic_id.hex(),
        schema,
    )
    with running.redis() as client:
        notes = [
            client.get(key) for key in client.scan_iter(f"tw:3:carried:*{topic.topic_id.hex()}*")
        ]
    both = (noted[0][0], notes.count(str(schema).encode()))
    return both == (topic.partitions, topic.partitions)


def told(running: Pipeline, ref: str) -> set[tuple[bool, bool | None]]:
    """What the registry says of partitions in which entities may lack a version."""
    engine = connect(running.settings.postgres)
    try:
        catalog = recorded.load(engine)
        with engine.connect() as connection:
            found = coverage.behind(connection, catalog, ref, running.heartbeats())
    finally:
        engine.dispose()
    assert len(found) == 4
    return {(one.offline, one.online) for one in found}


@pytest.mark.timeout(240)
def test_positions_that_never_tick_again(running: Pipeline, hot_redis: str) -> None:
    """Hot has their rows, and no tick comes: a new feature of them is there all the same."""
    n = 200
    running.produce("position", positions(n))
    running.start_both()
    running.wait_drained(*BOTH)
    entities = [{"portfolio": f"P{i % 40}", "symbol": f"S{i}"} for i in range(n)]
    settings = running.settings
    options = ServerOptions(settings.redis, hot_redis, settings.postgres)
    with serving(create_app(options)) as url, httpx.Client(base_url=url, timeout=20) as client:

        def answers(*features: str) -> list[Any]:
            body = {"features": features, "entities": entities}
            found = client.post("/features/batch", json=body).json()["results"]
            return [one["features"][feature] for one in found for feature in features]

        def hot_has_them() -> bool:
            found = answers("position_size")
            return sum(one.get("tier") == "hot" for one in found) > n / 2

        wait_for("hot has rows", hot_has_them)
        declare(running, "size_2", "1.0.0", "mean(quantity, 2)")
        wait_for("it is known", lambda: client.get("/features/size_2").status_code == 200)
        expected = ["missing" if i % 10 == 0 else "ok" for i in range(n)]
        wait_for("all have it", lambda: [one["status"] for one in answers("size_2")] == expected)
        for number, one in enumerate(answers("size_2")):
            if number % 10:
                assert one["value"] == number
    wait_for("it is finished", lambda: finished(running))
    assert behind(running, n) == (0, 0)
    wait_for("it is told", lambda: told(running, "size_2@1.0.0") == {(False, False)})
    assert assert_no_difference(running).looked["rows beside others of a tick"] == n


@pytest.mark.long
@pytest.mark.timeout(240)
def test_workers_that_are_killed_in_the_middle(running: Pipeline) -> None:
    n = 6_000
    running.produce("position", positions(n))
    running.start_both()
    running.wait_drained(*BOTH)
    for version in ("2.0.0", "3.0.0", "4.0.0"):
        declare(running, "position_size", version, "last(quantity)")
        wait_for("it has begun", lambda: min(behind(running, n)) < n)
        for sink in BOTH:
            running.kill(f"{sink}-one")
        running.start_both()
    wait_for("it is finished", lambda: finished(running))
    assert behind(running, n) == (0, 0)
    ((twice,),) = running.query(
        "SELECT count(*) FROM (SELECT FROM tickwell.feature_rows"
        ' GROUP BY entity, schema_id, partition, "offset", index HAVING count(*) > 1) AS found'
    )
    assert twice == 0
    assert_no_difference(running)
