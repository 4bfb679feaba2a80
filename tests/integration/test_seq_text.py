"""Trade ids that are text: kept as they are, compared by their digests, and equal in a replay."""

from __future__ import annotations

import json
from hashlib import sha256

import psycopg2
import pytest

from pipelines.compute.batch import Batch
from pipelines.errors import ParityViolation
from pipelines.stores.postgres.offline_sink import OfflineSink
from pipelines.ticks.decoder import Decoder
from tests.oracle.messages import Record
from tests.support.logs import NOW_MS, runs
from tests.support.shipped import SOURCE
from tests.support.sinks import GO_ON, Opened, query, worker
from tests.support.windows import apply_new, table

IDS = ["b-1", 7, None, "b-1", "b-2", "\u00e9", "7"]
STORED = 'SELECT seq, seq_text FROM tickwell.feature_rows ORDER BY "offset"'


def log(ids: list[object]) -> list[Record]:
    ticks = [{"symbol": "A", "price": 1, "ts": NOW_MS, "seq": each} for each in ids]
    return [
        Record("ticks.price", 0, offset, NOW_MS, b"A", json.dumps(tick).encode())
        for offset, tick in enumerate(ticks)
    ]


def number(text: str) -> int:
    return int.from_bytes(sha256(text.encode()).digest()[:8], "big", signed=True)


def test_an_id_is_stored_beside_its_number(opened: Opened, postgres_database: str) -> None:
    offline = worker(opened(OfflineSink(postgres_database)))
    for run in runs(log(IDS), (2,)):
        batch = offline.materialize(run, GO_ON)
        assert isinstance(batch, Batch)
    assert [rejected.reason for rejected in batch.rejected] == ["duplicate"]
    assert query(postgres_database, STORED) == [
        (number("b-1"), "b-1"),
        (7, None),
        (None, None),
        (number("b-2"), "b-2"),
        (number("\u00e9"), "\u00e9"),
        (number("7"), "7"),
    ]


@pytest.mark.parametrize("text", ["b-1", "b-3"])
def test_a_row_that_exists_must_have_the_same_id(
    opened: Opened, postgres_database: str, text: str
) -> None:
    """The rows are there, the watermark is not, as where a replay was before live."""
    (run,) = runs(log(["b-1", "b-2"]), ())
    worker(opened(OfflineSink(postgres_database))).materialize(run, GO_ON)
    batch = apply_new(table(), Decoder(SOURCE).decode(run))
    start, end = batch.seq_text[0].tolist()
    batch.texts[start:end] = bytearray(text.encode())  # its number stays
    again = opened(OfflineSink(postgres_database))
    forget(postgres_database)
    if text == "b-1":
        assert again.store(batch) == []
        return
    with pytest.raises(ParityViolation):
        again.store(batch)


def forget(url: str) -> None:
    connection = psycopg2.connect(url)
    connection.autocommit = True
    connection.cursor().execute("DELETE FROM tickwell.watermarks")
    connection.close()
