"""Training sets that are asked for wrongly, or by clients that go away: what others have of it."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import duckdb
import httpx
import numpy as np
import pandas as pd
import polars as pl
import psutil
import psycopg2
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from registry.database.engine import connect
from registry.features_file import Text
from registry.lifecycle.audit import By
from registry.lifecycle.registry import Registry
from tests.support.pipeline import wait_for
from tests.support.rebuilds import Stores
from tests.support.sinks import query
from tests.support.training_sets import ARROW, FEATURES, Made, in_json, ipc, making, rfc_3339, run
from tickwell import Client
from tickwell.client.errors import ClientError, ProblemAnswer

WAITING = "FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
CANCEL = f"SELECT pg_cancel_backend(pid) {WAITING}"

OPTIONS = "-f", "price_sma_5", "--time-column", "at", "-o"
KEYS = ["symbol", "at"]
MADE_BY = b"tickwell.training_set"

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
    done = cancelled(made, lambda: run(made, "build", rows, *OPTIONS, out))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("tickwell: TICKWELL_POSTGRES: canceling")
    assert [file.name for file in tmp_path.iterdir()] == [rows.name]

    monkeypatch.setenv("TICKWELL_POSTGRES", made.postgres)
    many = pa.concat_tables([made.arrow()] * (100_000 // len(made.moments) + 1))
    told = pytest.raises(ClientError, match="TICKWELL_POSTGRES: canceling")
    with Client(made.url, deadline_seconds=60) as client, told:
        cancelled(made, lambda: client.get_offline_features(FEATURES, many, "at"))


def test_a_client_that_goes_away_holds_up_nobody(made: Made) -> None:
    """Its question ends with it, though the deadline is far."""
    url = f"{made.url}/features/offline"
    with psycopg2.connect(made.postgres) as connection:
        connection.cursor().execute("LOCK TABLE tickwell.feature_rows")
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(url, json=in_json(made), timeout=httpx.Timeout(60, read=2))
        ended = lambda: not query(made.postgres, f"SELECT 1 {WAITING}")  # noqa: E731
        wait_for("nobody is asked, before the deadline", ended, patience=40)
        connection.rollback()
    assert httpx.post(url, json=in_json(made), timeout=60).status_code == 200


def test_the_process_of_joins_is_not_in_the_session_of_the_server(made: Made) -> None:
    """What a terminal sends to all of a session, as with Ctrl-C, is for the server alone."""
    url = f"{made.url}/features/offline"
    assert httpx.post(url, json=in_json(made), timeout=60).status_code == 200
    joins = [
        child.pid
        for child in psutil.Process().children()
        if "serving.api.offline_child" in child.cmdline()
    ]
    assert [os.getsid(pid) for pid in joins] == joins != []


def broken(rows: Path, place: Path) -> dict[str, Path]:
    """Files that are not what they seem to be."""
    whole = rows.read_bytes()
    files = {
        "nothing": b"",
        "pages": whole[:4] + b"\x7f" * 200 + whole[204:],
        "footer": whole[:-40] + b"\xff" * 32 + whole[-8:],
        "end": whole[: len(whole) // 2],
    }
    found = {"absent": place / "absent", "folder": place}
    for name, content in files.items():
        found[name] = place / f"{name}.parquet"
        found[name].write_bytes(content)
    table = pq.read_table(rows).slice(0, 1)
    sizes, text = pa.py_buffer(np.array([0, 2], np.int32)), pa.py_buffer(b"\xff\xfe")
    symbol = pa.Array.from_buffers(pa.string(), 1, [None, sizes, text])
    found["text"] = place / "text.parquet"
    pq.write_table(table.set_column(0, "symbol", symbol), found["text"])
    return found


def test_files_that_cannot_be_read_or_written(made: Made, tmp_path: Path, small: Path) -> None:
    """A line says which, and nothing is left of what was begun."""
    rows, out = tmp_path / "rows.parquet", tmp_path / "set.parquet"
    pq.write_table(made.arrow(), rows)
    for file in broken(rows, tmp_path).values():
        done = run(made, "build", file, *OPTIONS, out)
        last = done.stderr.splitlines()[-1]
        assert (done.returncode, last[:9], "Traceback" in done.stderr) == (1, "tickwell:", False)
        assert run(made, "verify", file).returncode == 2
    before = sorted(tmp_path.iterdir())
    many = pa.concat_tables([made.arrow()] * 2_000)
    large = small.parent / "large.parquet"
    noise = np.random.default_rng(1).random(len(many))
    pq.write_table(many.append_column("noise", pa.array(noise)), large)
    for place, said in (
        (tmp_path, "is a folder"),
        (tmp_path / "no" / "set", "No such file or directory"),
        (rows / "set", "Not a directory"),
        (small / "set", "No space left on device"),
    ):
        done = run(made, "build", large, *OPTIONS, place, "--overwrite")
        last = done.stderr.splitlines()[-1]
        assert (done.returncode, last.startswith("tickwell: ")) == (1, True), done.stderr
        assert str(place) in last
        assert said in last
    assert sorted(tmp_path.iterdir()) == before
    assert list(small.iterdir()) == []
    out.touch()
    link = tmp_path / "link"
    link.symlink_to(out)
    assert run(made, "build", rows, *OPTIONS, link, "--overwrite").returncode == 0
    assert link.is_symlink()
    assert pq.read_table(out).num_rows == len(made.moments)


@pytest.fixture
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder on a disk of its own, of 64 kB."""
    if os.geteuid() != 0:
        pytest.skip("only root mounts a disk")
    place = tmp_path_factory.mktemp("disk") / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a disk cannot be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_file_that_is_no_training_set_any_more(made: Made, tmp_path: Path) -> None:
    """That it could not be compared is another result than that it differs."""
    rows, out = tmp_path / "rows.parquet", tmp_path / "set.parquet"
    pq.write_table(made.arrow(), rows)
    assert run(made, "build", rows, *OPTIONS, out, "--event-times").returncode == 0
    table = pq.read_table(out)
    made_by = json.loads(table.schema.metadata[MADE_BY])

    def otherwise(**how: Any) -> Any:
        told = json.dumps({**made_by, **how}).encode()
        return table.replace_schema_metadata({**table.schema.metadata, MADE_BY: told})

    def as_type(column: str, type_: Any) -> Any:
        number = table.schema.get_field_index(column)
        return table.set_column(number, column, table.column(column).cast(type_, safe=False))

    n = len(table)
    status = table.schema.get_field_index("price_sma_5__status")
    changed = [
        otherwise(pins={}),
        otherwise(as_known_at=2**70),
        otherwise(as_known_at=-(2**63)),
        as_type("price_sma_5", pa.float32()),
        as_type("price_sma_5", pa.string()),
        as_type("price_sma_5__event_time", pa.timestamp("us", "UTC")),
        table.set_column(status, "price_sma_5__status", pa.array(range(n))),
        table.append_column("price_sma_5", table.column("price_sma_5")),
        table.drop_columns(["price_sma_5"]),
        table.drop_columns(["at"]),
    ]
    place = tmp_path / "changed.parquet"
    for one in changed:
        pq.write_table(one, place)
        done = run(made, "verify", place)
        assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    empty = made._replace(postgres=made.postgres.rpartition("/")[0] + "/no_such_database")
    assert run(empty, "verify", out).returncode == 2
    assert run(made, "verify", out).returncode == 0


def ways_to_grow(made: Made) -> dict[str, dict[str, Any]]:
    """Questions of which a few bytes say that they are many."""
    n, symbol = 100_000, "x" * 1_000_000
    arrow = {"params": {"feature": "current_price", "time_column": "at"}}
    arrow["headers"] = {"content-type": ARROW}
    at = pa.array([made.moments[0]] * n).cast(pa.timestamp("ns", "UTC"))
    found = {}
    for type_ in (pa.string(), pa.large_string()):
        keys = pa.DictionaryArray.from_arrays(np.zeros(n, np.int32), pa.array([symbol], type_))
        found[f"a dictionary of {type_}"] = {**arrow, "content": ipc(pa.table([keys, at], KEYS))}
    view = np.array([len(symbol), int.from_bytes(b"xxxx"), 0, 0], np.int32)
    buffers = [None, pa.py_buffer(np.tile(view, n)), pa.py_buffer(symbol.encode())]
    keys = pa.Array.from_buffers(pa.string_view(), n, buffers)
    found["views"] = {**arrow, "content": ipc(pa.table([keys, at], KEYS))}
    zeros = dict.fromkeys(map(str, range(24)), pa.array([bytes(100_000_000)]))
    table = pa.table({"symbol": ["A"], "at": at[:1], **zeros})
    found["zeros"] = {**arrow, "content": ipc(table, compression="zstd")}
    entities = [{f"key{n}": "A"} for n in range(10_000)]
    times = [rfc_3339(made.moments[0])] * len(entities)
    body = in_json(made, features=["current_price"], entities=entities, timestamps=times)
    found["fields"] = {"json": body}
    return found


def test_questions_that_grow(made: Made) -> None:
    """What a client sends is bounded as what it comes to; and then as before."""
    url = f"{made.url}/features/offline"
    for way, question in ways_to_grow(made).items():
        sent = httpx.post(url, timeout=60, **question)
        assert sent.status_code in (413, 422), (way, sent.text[:500])
        (joins,) = [
            child
            for child in psutil.Process().children()
            if "serving.api.offline_child" in child.cmdline()
        ]
        peak = Path(f"/proc/{joins.pid}/status").read_text().partition("VmHWM:")[2].split()[0]
        assert int(peak) < 2_200_000, (way, peak)
    assert httpx.post(url, json=in_json(made), timeout=60).status_code == 200


def test_a_column_of_the_caller_is_never_put_over(made: Made, stores: Stores) -> None:
    """What is in a set is known to the server alone, which does not see all columns."""
    registry = Registry(connect(stores.postgres, pool_size=1), By("ann"))
    features = '"current_price@1.0.0", "price_sma_5@1.0.0"'
    sets = f'[[set]]\nname = "momentum"\nversion = "1"\nfeatures = [{features}]\n'
    registry.apply(Text("sets.toml", registry.export() + sets))
    mine = made.arrow().append_column("price_sma_5", pa.array([7.0] * len(made.moments)))
    with Client(made.url, deadline_seconds=60) as client:
        for frame in (mine, pl.from_arrow(mine), mine.to_pandas(), duckdb.from_arrow(mine)):
            with pytest.raises(ValueError, match="price_sma_5 already"):
                client.get_offline_features(["set:momentum@1"], frame, "at")


def test_stamps_of_python_are_not_read_by_guess(made: Made) -> None:
    """Arrow takes one without a zone for UTC where the first one has a zone."""
    zone = ZoneInfo("America/New_York")
    mixed = [datetime(2023, 11, 14, 12, tzinfo=zone), datetime(2023, 11, 14, 12)]
    nanoseconds = [pd.Timestamp(moment, tz="UTC") for moment in made.moments[:2]]
    with Client(made.url, deadline_seconds=60) as client:
        for moments in (mixed, mixed[::-1], nanoseconds):
            frame = pd.DataFrame({"symbol": ["A", "B"], "at": pd.Series(moments, dtype=object)})
            with pytest.raises(ClientError, match="to_datetime"):
                client.get_offline_features(["price_sma_5"], frame, "at")
        frame["at"] = pd.to_datetime(frame["at"], utc=True)
        assert len(client.get_offline_features(["price_sma_5"], frame, "at")) == 2
        twice = pd.concat([frame, frame[["symbol"]]], axis=1)
        with pytest.raises(ClientError, match="symbol"):
            client.get_offline_features(["price_sma_5"], twice, "at")


def test_rows_without_moments_are_refused_before_they_are_joined(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TICKWELL_POSTGRES", made.postgres)
    many = pa.concat_tables([made.arrow()] * (100_000 // len(made.moments) + 1))
    with Client(made.url, deadline_seconds=60) as client:
        for frame in (many, pl.from_arrow(many), many.to_pandas()):
            with pytest.raises(ValueError, match="event_timestamp_col"):
                client.get_offline_features(FEATURES, frame, "when")


def test_a_pinned_version_has_its_key_though_no_active_one_has_it(
    made: Made, stores: Stores
) -> None:
    """A version that is on standby may be the only one of a kind of entity."""
    stores.execute("DELETE FROM tickwell.active_versions WHERE name LIKE 'p%%'")
    stores.execute("UPDATE tickwell.serial SET number = number + 1")
    pins = ["portfolio_exposure@1.0.0"]
    wait_for(
        "the server knows it",
        lambda: "portfolio_exposure" not in httpx.get(f"{made.url}/features").text,
    )
    with Client(made.url, deadline_seconds=60) as client:
        assert not any("portfolio" in one.entity for one in client.features())
        found = client.get_offline_features(pins, made.arrow(), "at")
    assert [
        (None if value is None else float(value).hex(), status)
        for value, status in zip(
            found.column(pins[0]).to_pylist(),
            found.column(f"{pins[0]}__status").to_pylist(),
            strict=True,
        )
    ] == [(bits, status) for bits, status, _ in made.expected["portfolio_exposure"]]


ODD = ("\\", "'; --", "%s %(x)s", "é€", "{a,b}", "NULL", '"q"', " ", "Ã©")
AS_ANOTHER = """
    INSERT INTO tickwell.feature_rows (
        schema_id, entity, event_time, sequence, revision, tick_time, seq, op, fields, features,
        status, known_at, topic_id, partition, "offset", index
    )
    SELECT
        schema_id, %s, event_time, sequence, revision, tick_time, seq, op, fields, features,
        status, known_at, topic_id, partition, "offset", index
    FROM tickwell.feature_rows WHERE entity = 'A'
"""
READER = """
    CREATE ROLE {0} LOGIN PASSWORD 'r';
    ALTER ROLE {0} SET client_encoding = 'LATIN1';
    ALTER ROLE {0} SET standard_conforming_strings = off;
    ALTER ROLE {0} SET default_transaction_isolation = 'serializable';
    GRANT USAGE ON SCHEMA tickwell TO {0};
    GRANT SELECT ON ALL TABLES IN SCHEMA tickwell TO {0}
"""


def test_an_account_that_only_reads_and_keys_that_look_like_something_else(
    made: Made, stores: Stores, tmp_path: Path
) -> None:
    """Whatever the account is set to."""
    for key in ODD:
        stores.execute(AS_ANOTHER, key)
    at = pa.array(made.moments[:1] * (len(ODD) + 1)).cast(pa.timestamp("ns", "UTC"))
    rows, out = tmp_path / "rows.parquet", tmp_path / "set.parquet"
    pq.write_table(pa.table({"symbol": ["A", *ODD], "at": at}), rows)
    reader = f"reader_{uuid.uuid4().hex[:8]}"
    stores.execute(READER.format(reader))
    try:
        account = f"postgresql://{reader}:r@{made.postgres.rpartition('@')[2]}"
        done = run(made._replace(postgres=account), "build", rows, *OPTIONS, out)
    finally:
        stores.execute(f"DROP OWNED BY {reader}; DROP ROLE {reader}")
    assert done.returncode == 0, done.stderr
    found = pq.read_table(out).select(["price_sma_5", "price_sma_5__status"]).to_pylist()
    assert found == found[:1] * len(found)
    assert found[0]["price_sma_5__status"] != "missing"
