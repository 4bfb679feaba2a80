"""Counts of reads in Postgres: each batch is added once, and what is old is deleted."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, select

from registry.database.tables import usage as table
from registry.lifecycle.usage import last_read, recent_readers, usage
from registry.lifecycle.usage_recording import RETENTION_DAYS, Batch, Counted, add, prune
from serving.usage import Usage
from serving.watch.usage_store import UsageStore
from tests.support.network import network
from tests.support.usage import stored

PRICE = "current_price@1.0.0"
DAY = date(2026, 11, 30)
NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)


def batch(process: UUID, number: int, counts: Iterable[tuple[str, str, date, int]]) -> Batch:
    return Batch(
        process,
        number,
        [
            Counted(ref, consumer, day, reads, datetime(day.year, day.month, day.day, tzinfo=UTC))
            for ref, consumer, day, reads in counts
        ],
    )


def test_a_batch_that_is_sent_again_is_added_once(engine: Engine) -> None:
    """Of several processes, in any order in which each may send its own."""
    chances = random.Random(3)
    expected: Counter[tuple[str, str]] = Counter()
    processes = [uuid4() for _ in range(3)]
    with engine.connect() as connection:
        for number in range(1, 20):
            for process in processes:
                counts = [
                    (ref, consumer, DAY + timedelta(chances.randrange(3)), chances.randrange(1, 9))
                    for ref in (PRICE, "a@1.0.0")
                    for consumer in "xy"
                ]
                for ref, consumer, _, reads in counts:
                    expected[ref, consumer] += reads
                for _ in range(chances.randrange(1, 4)):
                    add(connection, batch(process, number, counts))
    assert stored(engine) == expected


def test_old_days_are_deleted_and_a_day_at_the_limit_is_kept(engine: Engine) -> None:
    days = [DAY - timedelta(days=RETENTION_DAYS + back) for back in range(-2, 5)]
    with engine.connect() as connection:
        add(connection, batch(uuid4(), 1, [(PRICE, "c", day, 1) for day in [DAY, *days]]))
        assert not prune(connection, DAY, most=2)
        assert not prune(connection, DAY, most=2)
        assert prune(connection, DAY, most=2)
    with engine.connect() as connection:
        kept = set(connection.execute(select(table.c.day)).scalars())
    assert kept == {DAY, *days[:3]}


def test_connections_that_break_lose_and_double_nothing(
    postgres_database: str, engine: Engine
) -> None:
    """They are cut at any moment of a flush, also between a commit and its answer."""
    chances = random.Random(7)
    expected: Counter[tuple[str, str]] = Counter()

    async def main() -> None:
        usage = Usage()
        store = UsageStore(usage, between.url, longest_pause=3_600)
        reads = usage.reads([PRICE, "price_sma_5@1.0.0"])
        async with store.storing():
            for _ in range(30):
                consumer, entities = chances.choice("abc"), chances.randrange(1, 50)
                reads[consumer] += entities
                expected[PRICE, consumer] += entities
                expected["price_sma_5@1.0.0", consumer] += entities
                between.slow(chances.choice([0.0, 0.01, 0.03]))
                flush = asyncio.create_task(store.flush())
                await asyncio.sleep(chances.uniform(0, 0.15))
                between.cut()
                await flush
                between.heal()
            assert usage.failures > 0
            await store.flush()
            assert usage.waiting == 0

    with network(postgres_database) as between:
        asyncio.run(main())
    assert stored(engine) == expected


def test_a_postgres_that_hangs_does_not_hold_up_the_end(
    postgres_database: str, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    """What was not stored is told, and what was stored before is."""

    async def main() -> None:
        usage = Usage()
        store = UsageStore(usage, between.url, longest_pause=3_600)
        reads = usage.reads([PRICE])
        async with store.storing():
            reads["a"] += 2
            await store.flush()
            reads["a"] += 3
            between.hold()
        between.heal()

    with network(postgres_database) as between, caplog.at_level(logging.WARNING):
        asyncio.run(main())
    assert "3 reads are in no count, as the server ends" in caplog.text
    assert stored(engine)[PRICE, "a"] in (2, 5)  # what was sent may come after all


def test_the_usage_of_a_feature(engine: Engine) -> None:
    counts = [
        ("f@1.0.0", "b", DAY, 5),
        ("f@1.0.0", "b", DAY - timedelta(2), 7),
        ("f@1.0.0", "a", DAY, 1),
        ("f@1.1.0", "a", DAY - timedelta(1), 30),
        ("f@1.1.0", "gone", DAY - timedelta(3), 99),
        ("other@1.0.0", "a", DAY, 4),
    ]
    with engine.connect() as connection:
        for at in (NOON, NOON - timedelta(hours=1)):  # of another process, which is behind
            add(connection, Batch(uuid4(), 1, [Counted("other@1.0.0", "a", DAY, 2, at)]))
        add(connection, batch(uuid4(), 1, counts))
    with engine.connect() as connection:
        found = usage(connection, "f", 3, DAY)
        assert found.name == "f"
        assert found.days == (DAY - timedelta(2), DAY - timedelta(1), DAY)
        told = [(one.version, one.consumer, one.reads, one.total) for one in found.usage]
        assert told == [
            ("1.1.0", "a", (0, 30, 0), 30),
            ("1.0.0", "b", (7, 0, 5), 12),
            ("1.0.0", "a", (0, 0, 1), 1),
            ("1.1.0", "gone", (0, 0, 0), 0),
        ]
        assert found.usage[3].last_read == datetime(2026, 11, 27, tzinfo=UTC)
        assert usage(connection, "nothing", 1, DAY).usage == ()
        for days in (0, -1, RETENTION_DAYS + 1):
            with pytest.raises(ValueError, match="counts are kept for"):
                usage(connection, "f", days, DAY)
        assert last_read(connection, "f@1.0.0") == datetime(2026, 11, 30, tzinfo=UTC)
        assert last_read(connection, "other@1.0.0") == NOON
        since = datetime(2026, 11, 29, tzinfo=UTC)
        assert recent_readers(connection, "f@1.1.0", since) == ["a"]
        assert recent_readers(connection, "f@1.0.0", since) == ["a", "b"]
