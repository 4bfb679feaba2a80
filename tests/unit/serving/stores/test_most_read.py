"""Which entities are read most: the sketch, and the files that keep it."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from serving.stores.most_read import MostRead
from serving.stores.most_read_files import MostReadFile, most_read, saved
from serving.stores.row_store import RowId
from tests.support.apps import in_a_loop


def zipf(skew: float, entities: int, draws: int) -> list[int]:
    """Entities by rank, as often as a Zipf distribution says."""
    weights = 1.0 / np.arange(1, entities + 1) ** skew
    return np.random.default_rng(7).choice(entities, draws, p=weights / weights.sum()).tolist()  # type: ignore[no-any-return]


def test_with_room_for_all_counts_are_in_the_order_of_the_reads() -> None:
    counted = MostRead(most=10, every=1, draw=random.Random(1))
    for _ in range(50):
        for name, reads in ((b"a", 1), (b"b", 4), (b"c", 9)):
            for _ in range(reads):
                counted.note([("price", [name])])
    assert counted.names() == [b"c", b"b", b"a"]


@pytest.mark.parametrize("every", [1, 8])
def test_what_is_read_most_stays_however_much_else_is_read(every: int) -> None:
    """Of 100,000 entities 1,000 are counted: they have most of the reads that the best have."""
    counted = MostRead(most=1_000, every=every, draw=random.Random(2))
    drawn = zipf(1.1, 100_000, 300_000)
    for entity in drawn:
        counted.note([("price", [b"%d" % entity])])
    assert len(counted) == 1_000
    reads = Counter(drawn)
    kept = sum(reads[int(name)] for name in counted.names())
    best = sum(count for _, count in reads.most_common(1_000))
    assert kept > (0.9 if every == 1 else 0.8) * best
    assert set(map(int, counted.names()[:200])) >= set(range(10))


def test_what_nobody_reads_any_more_makes_room() -> None:
    counted = MostRead(most=100, every=1, draw=random.Random(3))
    for round in range(400):
        for number in range(100):
            counted.note([("price", [b"%s-%d" % (b"old" if round < 100 else b"new", number)])])
    assert sum(name.startswith(b"new") for name in counted.names()) >= 99


def test_a_read_of_nothing_counts_nothing() -> None:
    counted = MostRead(every=1, draw=random.Random(1))
    for nothing in ([], [("price", [])]):
        for _ in range(3):
            counted.note(nothing)
    assert counted.names() == []


def test_a_read_of_many_rows_counts_as_many() -> None:
    """However large a batch is, one draw is made of it."""
    counted = MostRead(most=1_000, every=1, draw=random.Random(4))
    for _ in range(300):
        counted.note([("price", [b"one"])])
        counted.note([("price", [b"of %d" % number for number in range(100)])])
    totals = {read.name: read.reads for read in counted.reads()}
    assert sum(totals.values()) - totals[b"one"] > 20 * totals[b"one"]
    counted.note([("price", [])])


ROWS = [(RowId("price", (f"S{number}\n\u00fc",)), float(number)) for number in range(2_000)]
POSITIONS = [(RowId("position", ("P1", "A")), 2.5)]


@in_a_loop
async def test_each_process_has_a_file_and_all_are_read(tmp_path: Path) -> None:
    directory = tmp_path / "most-read"
    assert most_read(directory) == []
    first, second = MostReadFile(directory), MostReadFile(directory)
    await first.save(ROWS)
    await second.save(ROWS[:10] + POSITIONS)
    assert saved(directory) == [ROWS, ROWS[:10] + POSITIONS]
    found = most_read(directory)
    assert dict(found)[RowId("price", ("S9\n\u00fc",))] == 9.0
    assert dict(found)[RowId("position", ("P1", "A"))] == 1.25
    assert [reads for _, reads in found] == sorted((reads for _, reads in found), reverse=True)
    first.close()
    again = MostReadFile(directory)
    await again.save(POSITIONS)
    assert saved(directory) == [POSITIONS, ROWS[:10] + POSITIONS]
    again.close()
    second.close()
    assert sorted(path.name for path in directory.iterdir()) == [
        "1.jsonl",
        "1.lock",
        "2.jsonl",
        "2.lock",
    ]


@in_a_loop
async def test_requests_are_served_while_it_is_saved(tmp_path: Path) -> None:
    file = MostReadFile(tmp_path)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.create_task(count())
    await file.save(ROWS * 10)
    counting.cancel()
    assert turns >= 20
    file.close()


def test_a_damaged_file_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "1.jsonl").write_bytes(b'["price",["A"],1.0]\n["pri')
    (tmp_path / "2.jsonl").write_bytes(b'["price",["B"],1.0]\n')
    (tmp_path / "3.jsonl").mkdir()
    with caplog.at_level(logging.WARNING):
        assert saved(tmp_path) == [[(RowId("price", ("B",)), 1.0)]]
    assert "1.jsonl is left out" in caplog.text
    assert "3.jsonl is left out" in caplog.text
