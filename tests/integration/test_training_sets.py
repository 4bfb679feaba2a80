"""Training sets as people ask for them: over HTTP, by the Python clients, by the command."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import httpx
import numpy as np
import pandas as pd
import polars as pl
import psycopg2
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from registry.database.engine import connect
from registry.lifecycle.audit import By
from registry.lifecycle.registry import Registry
from serving.app import ServerOptions, create_app
from tests.support.backfills import backfill
from tests.support.pipeline import wait_for
from tests.support.rebuilds import Stores
from tests.support.running_server import running
from tests.support.sinks import query
from tests.support.training_sets import ARROW, FEATURES, Made, in_json, ipc, making, run
from tickwell import AsyncClient, Client
from tickwell.client.errors import ClientError, ProblemAnswer

WAITING = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"


@pytest.fixture
def made(stores: Stores, hot_redis: str) -> Iterator[Made]:
    with making(stores, hot_redis) as found:
        yield found


def test_json_and_arrow_say_the_same(made: Made) -> None:
    url = f"{made.url}/features/offline"
    body = in_json(made, event_times=True)
    answer = httpx.post(url, json=body, timeout=60).raise_for_status()
    found = answer.json()
    assert found["rows"] == len(made.moments)
    for name in FEATURES:
        column = found["features"][name]
        assert column["version"] == "1.0.0"
        bits = [None if value is None else float(value).hex() for value in column["values"]]
        told = zip(bits, column["statuses"], column["event_times"], strict=True)
        assert list(told) == made.expected[name]
    params = [*(("feature", name) for name in FEATURES), ("time_column", "at")]
    for accept in (ARROW, "application/json"):
        headers = {"content-type": ARROW, "accept": accept}
        content = ipc(made.arrow())
        sent = httpx.post(url, params=params, content=content, headers=headers, timeout=60)
        sent.raise_for_status()
        if accept == ARROW:
            with pa.ipc.open_stream(sent.content) as stream:
                table = stream.read_all()
            made.check(table)
            values = table.column("price_sma_5").chunk(0)
            beneath = np.frombuffer(values.buffers()[1], np.float64)
            assert np.isnan(beneath[np.array(values.is_null())]).all()
        else:
            del body["event_times"]
            for column in found["features"].values():
                column.pop("event_times", None)
            assert sent.json() == found


def test_each_kind_of_frame_comes_back_as_it_was(made: Made) -> None:
    table = made.arrow()

    def frames() -> Iterator[Any]:
        yield table
        yield pl.from_arrow(table)
        index = pd.Index([f"row {n % 7}" for n in range(len(table))], name="mine")
        yield table.to_pandas().set_index(index)
        yield duckdb.from_arrow(table)

    for frame in frames():
        with Client(made.url, deadline_seconds=60) as client:
            found = client.get_offline_features(FEATURES, frame, "at")
        assert type(found) is type(frame)
        names = [c for name in FEATURES for c in (name, f"{name}__status")]
        if isinstance(found, pd.DataFrame):
            assert list(found.columns) == [*table.schema.names, *names]
            pd.testing.assert_frame_equal(found[table.schema.names], frame)
            assert all(found[name].dtype == np.float64 for name in FEATURES)
            made.check(pa.Table.from_pandas(found, preserve_index=False))
        else:
            as_table = found.to_arrow_table() if hasattr(found, "to_arrow_table") else None
            as_table = as_table or (found.to_arrow() if isinstance(found, pl.DataFrame) else found)
            assert as_table.schema.names == [*table.schema.names, *names]
            for name in table.schema.names:
                assert as_table.column(name).to_pylist() == table.column(name).to_pylist()
            made.check(as_table)


def test_the_asynchronous_client_and_moments_of_a_time_zone(made: Made) -> None:
    """Naive stamps are read in the zone that is named: in New York, where clocks jump."""
    frame = made.arrow().to_pandas()
    frame["at"] = frame["at"].dt.tz_convert("America/New_York").dt.tz_localize(None)

    async def ask() -> Any:
        async with AsyncClient(made.url, deadline_seconds=60) as client:
            return await client.get_offline_features(
                FEATURES, frame, "at", timezone="America/New_York", event_times=True
            )

    found = asyncio.run(ask())
    made.check(pa.Table.from_pandas(found, preserve_index=False))
    times = found["price_sma_5__event_time"].astype("datetime64[ns, UTC]").astype("int64")
    expected = [time for _, _, time in made.expected["price_sma_5"]]
    missing = found["price_sma_5__event_time"].isna()
    assert [None if gone else int(t) for t, gone in zip(times, missing, strict=True)] == expected


def test_rows_of_any_number_are_joined_by_the_caller(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than a server takes: the same answers, from Postgres, in pieces."""
    monkeypatch.setenv("TICKWELL_POSTGRES", made.postgres)
    times = 100_000 // len(made.moments) + 1
    table = pa.concat_tables([made.arrow()] * times)
    with Client("http://127.0.0.1:9", deadline_seconds=60) as client:  # nobody is asked there
        found = client.get_offline_features(FEATURES, table, "at")
    assert len(found) == len(table) > 100_000
    n = len(made.moments)
    for first in (0, n, len(table) - n):
        made.check(found.slice(first, n))


def test_the_command_writes_a_file(made: Made, tmp_path: Path) -> None:
    rows, out = tmp_path / "rows.parquet", tmp_path / "set.parquet"
    pq.write_table(made.arrow(), rows)
    features = [part for name in FEATURES for part in ("-f", name)]
    options = [*features, "--time-column", "at", "-o", out]
    done = run(made, "build", rows, *options, "--json", "--event-times")
    assert done.returncode == 0, done.stderr
    found = pq.read_table(out)
    made.check(found)
    assert found.select(made.arrow().schema.names).equals(made.arrow())
    report = json.loads(done.stdout)
    assert report["rows"] == len(made.moments)
    for name in FEATURES:
        statuses = [status for _, status, _ in made.expected[name]]
        counts = {status: statuses.count(status) for status in set(statuses)}
        assert report["features"][name]["statuses"] == counts
    assert "already" in run(made, "build", rows, *options).stderr
    again = run(made, "build", rows, *options, "--overwrite", "--stale", "null")
    assert again.returncode == 0, again.stderr
    assert "price_sma_5" in again.stdout
    nothing = tmp_path / "nothing.parquet"
    pq.write_table(made.arrow().slice(0, 0), nothing)
    empty = run(
        made, "build", nothing, *features, "--time-column", "at", "-o", tmp_path / "empty.parquet"
    )
    assert empty.returncode == 0, empty.stderr
    assert pq.read_table(tmp_path / "empty.parquet").schema.names[-1].endswith("__status")
    assert sorted(one.name for one in tmp_path.iterdir()) == [
        "empty.parquet",
        "nothing.parquet",
        "rows.parquet",
        "set.parquet",
    ]


def test_a_training_set_is_proved_again(made: Made, stores: Stores, tmp_path: Path) -> None:
    """Every bit of it is compared; what was filled in since is told apart from what changed."""
    rows, out = tmp_path / "rows.parquet", tmp_path / "set.parquet"
    pq.write_table(made.arrow(), rows)
    registry = Registry(connect(stores.postgres, pool_size=1), By("ann"))
    registry.create_feature_version(
        "price_sma_5", "2.0.0", {"expression": "mean(price, 2)"}, "1.0.0"
    )
    features = [part for name in (*FEATURES, "price_sma_5@2.0.0") for part in ("-f", name)]
    options = "--time-column", "at", "--event-times", "-o", out
    assert run(made, "build", rows, *features, *options).returncode == 0
    same = run(made, "verify", out)
    assert same.returncode == 0, same.stderr
    assert f"{len(made.moments)} rows: the same" in same.stderr

    def changed(column: str, value: Any) -> Path:
        """The set with another value in the third row of a column."""
        table, place = pq.read_table(out), tmp_path / "changed.parquet"
        number, values = table.schema.names.index(column), table.column(column).to_pylist()
        assert values[3] != value
        values[3] = value
        array = pa.array(values, table.schema.field(column).type)
        pq.write_table(table.set_column(number, table.schema.field(column), array), place)
        return place

    last = len(made.moments) - 1
    assert last > 3
    for column, value in (
        ("price_sma_5", 1e-300),
        ("price_sma_5__status", "undefined"),
        ("price_sma_5__event_time", datetime(2020, 1, 1, tzinfo=UTC)),
    ):
        other = run(made, "verify", changed(column, value), "--json")
        assert other.returncode == 1, other.stderr
        found = json.loads(other.stdout)
        assert found["features"]["price_sma_5"] == {"rows": 1, "filled": 0, "first": 3}
        assert found["features"]["current_price"]["rows"] == 0
    assert run(made, "verify", rows).returncode == 2
    assert "no training set" in run(made, "verify", rows).stderr
    assert run(made, "verify", tmp_path / "none.parquet").returncode == 2
    engine = connect(stores.postgres)
    assert backfill(engine, stores.postgres, "price_sma_5@2.0.0").finished
    engine.dispose()
    filled = run(made, "verify", out, "--json")
    assert filled.returncode == 1
    pinned = json.loads(filled.stdout)["features"]["price_sma_5@2.0.0"]
    assert pinned["rows"] == pinned["filled"] > 0


WRONG: dict[str, tuple[Any, str]] = {
    "naive": (lambda t: t.set_column(1, "at", t["at"].cast(pa.timestamp("ns"))), "time zone"),
    "integers": (lambda t: t.set_column(1, "at", t["at"].cast(pa.int64())), "no stamp"),
    "null moment": (
        lambda t: t.set_column(1, "at", pa.nulls(len(t), pa.timestamp("ns", "UTC"))),
        "null in row 0",
    ),
    "integer keys": (lambda t: t.set_column(0, "symbol", pa.array(range(len(t)))), "not text"),
    "null key": (lambda t: t.set_column(0, "symbol", pa.nulls(len(t), pa.string())), "row 0"),
    "no key": (lambda t: t.drop_columns(["symbol"]), "no column 'symbol'"),
    "future": (
        lambda t: t.set_column(
            1, "at", pa.array([4 * 10**18] * len(t)).cast(pa.timestamp("ns", "UTC"))
        ),
        "future",
    ),
    "a column twice": (
        lambda t: t.append_column("price_sma_5", pa.nulls(len(t), pa.float64())),
        "already",
    ),
    "unreachable": (
        lambda t: t.set_column(1, "at", pa.array([10**12] * len(t)).cast(pa.timestamp("s", "UTC"))),
        "1677",
    ),
}


def test_what_is_wrong_with_rows_is_said(made: Made) -> None:
    params = [*(("feature", name) for name in FEATURES), ("time_column", "at")]
    for change, said in WRONG.values():
        sent = httpx.post(
            f"{made.url}/features/offline",
            params=params,
            content=ipc(change(made.arrow())),
            headers={"content-type": ARROW},
            timeout=60,
        )
        assert (sent.status_code, said in sent.json()["detail"]) == (422, True), sent.text


QUESTIONS: list[tuple[dict[str, Any], int, str]] = [
    ({"timestamps": []}, 422, "timestamps"),
    ({"timestamps": ["2026-11-24T14:30:00"]}, 422, "entities"),
    ({"as_known_at": "2026-11-24T14:30:00"}, 422, "time zone"),
    ({"features": ["no_such"]}, 404, "no_such"),
    ({"features": ["price_sma_5", "price_sma_5@9.0.0"]}, 404, "price_sma_5@9.0.0"),
    ({"wrong": 1}, 422, "wrong"),
]


def test_what_is_wrong_with_a_question_is_said(made: Made) -> None:
    for body, status, said in QUESTIONS:
        url = f"{made.url}/features/offline"
        sent = httpx.post(url, json=in_json(made, **body), timeout=60)
        assert (sent.status_code, said in sent.json()["detail"]) == (status, True), sent.text


def test_too_much_and_too_many_at_once(made: Made) -> None:
    url = f"{made.url}/features/offline"
    rows = in_json(made)
    many = 100_001
    rows |= {"entities": [{"symbol": "A"}] * many, "timestamps": ["2023-11-14T22:13:20Z"] * many}
    assert httpx.post(url, json=rows, timeout=60).status_code == 422
    large = httpx.post(url, content=b"x" * 9_000_000, timeout=60)
    assert large.status_code == 413
    with psycopg2.connect(made.postgres) as connection:
        connection.cursor().execute("LOCK TABLE tickwell.feature_rows")
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(httpx.post, url, json=in_json(made), timeout=60)
            wait_for("it waits for Postgres", lambda: query(made.postgres, WAITING))
            second = httpx.post(url, json=in_json(made), timeout=60)
            assert second.status_code == 503
            assert "one training set at a time" in second.json()["detail"]
            health = httpx.get(f"{made.url}/health/live", timeout=60)
            assert health.status_code == 200
            connection.rollback()
            assert first.result().status_code == 200


def test_a_question_that_is_not_answered_in_time_ends_with_its_process(made: Made) -> None:
    url = f"{made.url}/features/offline"
    with psycopg2.connect(made.postgres) as connection:
        connection.cursor().execute("LOCK TABLE tickwell.feature_rows")
        headers = {"x-deadline-ms": "300"}
        sent = httpx.post(url, json=in_json(made), headers=headers, timeout=60)
        assert sent.status_code == 503
        assert "300 ms" in sent.json()["detail"]
        connection.rollback()
    assert httpx.post(url, json=in_json(made), timeout=60).status_code == 200


def test_postgres_that_is_gone(made: Made, stores: Stores, hot_redis: str) -> None:
    options = ServerOptions(stores.redis_url, hot_redis, "postgresql://127.0.0.1:9/none")
    with running(create_app(options)) as url:
        sent = httpx.post(f"{url}/features/offline", json=in_json(made), timeout=60)
    assert sent.status_code == 503
    assert "Postgres" in sent.json()["detail"]


def test_the_client_says_what_is_wrong(made: Made) -> None:
    table = made.arrow()
    with Client(made.url, deadline_seconds=60) as client:
        with pytest.raises(ValueError, match="event_timestamp_col"):
            client.get_offline_features(FEATURES, table)
        with pytest.raises(TypeError, match="LazyFrame"):
            client.get_offline_features(FEATURES, pl.from_arrow(table).lazy(), "at")  # type: ignore[union-attr]
        naive = table.set_column(1, "at", table["at"].cast(pa.timestamp("ns")))
        with pytest.raises(ProblemAnswer, match="time zone"):
            client.get_offline_features(FEATURES, naive, "at")
        with pytest.raises(ValueError, match="already"):
            client.get_offline_features(["label"], table, "at")
        known = datetime(2026, 1, 1)
        with pytest.raises(ValueError, match="time zone"):
            client.get_offline_features(FEATURES, table, "at", as_known_at=known)
        mixed = table.to_pandas().astype({"symbol": object})
        mixed.loc[0, "symbol"] = 3
        with pytest.raises(ClientError, match="symbol"):
            client.get_offline_features(FEATURES, mixed, "at")


def test_equal_moments_of_one_entity_are_rows_each(made: Made) -> None:
    """As many rows as were asked, in their order, also of the very same question."""
    n = 10_000
    table = made.arrow().slice(0, 1)
    many = pa.concat_tables([table] * n)
    with Client(made.url, deadline_seconds=60) as client:
        found = client.get_offline_features(FEATURES, many, "at")
    assert len(found) == n
    for name in FEATURES:
        assert len(set(found.column(name).to_pylist())) == 1


def test_the_command_adds_a_split(made: Made, tmp_path: Path) -> None:
    rows, out = tmp_path / "rows.parquet", tmp_path / "set.parquet"
    known = pa.array([moment + 2 * 10**9 for moment in made.moments])
    labelled = made.arrow().append_column("known", known.cast(pa.timestamp("ns", "UTC")))
    pq.write_table(labelled, rows)
    at = sorted(made.moments)[30] // 10**9 * 10**9
    moment = f"{datetime.fromtimestamp(at // 10**9, UTC):%Y-%m-%dT%H:%M:%SZ}"
    options = "build", rows, "-f", "price_sma_5", "--time-column", "at", "-o", out
    bare = run(made, *options, "--split", moment)
    assert (bare.returncode, "--purge" in bare.stderr) == (1, True)
    alone = run(made, *options, "--embargo", "1h")
    assert (alone.returncode, "--split" in alone.stderr) == (1, True)
    done = run(made, *options, "--split", moment, "--purge", "known", "--embargo", "3s")
    assert done.returncode == 0, done.stderr
    expected = [
        ("purged" if t + 2 * 10**9 >= at else "train")
        if t < at
        else ("embargo" if t < at + 3 * 10**9 else "test")
        for t in made.moments
    ]
    assert set(expected) == {"train", "purged", "embargo", "test"}
    assert pq.read_table(out).column("split").to_pylist() == expected
    assert run(made, "verify", out).returncode == 0
