"""Training sets that are asked for wrongly, or by clients that go away: what others have of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import httpx
import psycopg2
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.pipeline import wait_for
from tests.support.rebuilds import Stores
from tests.support.sinks import query
from tests.support.training_sets import FEATURES, Made, in_json, making, run
from tickwell import Client
from tickwell.client.errors import ClientError, ProblemAnswer

WAITING = "FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
CANCEL = f"SELECT pg_cancel_backend(pid) {WAITING}"

T = TypeVar("T")


@pytest.fixture
def made(stores: Stores, hot_redis: str) -> Iterator[Made]:
    with making(stores, hot_redis) as found:
        yield found


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ("0001-01-01T00:00:00Z", "1970"),
        ("0001-01-01T00:00:00+14:00", "1970"),
        ("9999-12-31T23:59:59-14:00", "a second ago"),
        ("2100-01-01T00:00:00Z", "a second ago"),
    ],
)
def test_what_is_known_by_no_moment_of_the_past(made: Made, known: str, said: str) -> None:
    """What is known by a moment that is to come would be another thing each time it is asked."""
    url = f"{made.url}/features/offline"
    sent = httpx.post(url, json=in_json(made, as_known_at=known), timeout=60)
    assert (sent.status_code, said in sent.json()["detail"]) == (422, True), sent.text
    with Client(made.url, deadline_seconds=60) as client:
        to_come = datetime(2100, 1, 1, tzinfo=UTC)
        with pytest.raises(ProblemAnswer, match="a second ago"):
            client.get_offline_features(FEATURES, made.arrow(), "at", as_known_at=to_come)


def cancelled(made: Made, ask: Callable[[], T]) -> T:
    """What comes of a question whose statements Postgres cancels, as it does after two minutes."""
    with psycopg2.connect(made.postgres) as connection, ThreadPoolExecutor(1) as pool:
        connection.cursor().execute("LOCK TABLE tickwell.feature_rows")
        asked = pool.submit(ask)
        wait_for("it waits for Postgres", lambda: query(made.postgres, f"SELECT 1 {WAITING}"))
        query(made.postgres, CANCEL)
        try:
            return asked.result()
        finally:
            connection.rollback()


def test_statements_that_take_too_long(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks is told so in a line, and no file is left."""
    url = f"{made.url}/features/offline"
    sent = cancelled(made, lambda: httpx.post(url, json=in_json(made), timeout=60))
    assert (sent.status_code, "Postgres" in sent.json()["detail"]) == (503, True), sent.text

    rows, out = tmp_path / "rows.parquet", tmp_path / "set.parquet"
    pq.write_table(made.arrow(), rows)
    options = "-f", "price_sma_5", "--time-column", "at", "-o", out
    done = cancelled(made, lambda: run(made, "build", rows, *options))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("tickwell: TICKWELL_POSTGRES: canceling")
    assert [file.name for file in tmp_path.iterdir()] == [rows.name]

    monkeypatch.setenv("TICKWELL_POSTGRES", made.postgres)
    many = pa.concat_tables([made.arrow()] * (100_000 // len(made.moments) + 1))
    told = pytest.raises(ClientError, match="TICKWELL_POSTGRES: canceling")
    with Client(made.url, deadline_seconds=60) as client, told:
        cancelled(made, lambda: client.get_offline_features(FEATURES, many, "at"))
