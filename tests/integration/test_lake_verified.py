"""What `lake verify` and `lake status` say, and exports that are killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import Engine

from pipelines.lake.verification import LakeVerification, Verified
from registry.database.engine import connect
from registry.formats.lake import UNFINISHED
from tests.support.lakes import History, exported, files_of, in_lake, in_postgres, states
from tests.support.rebuilds import Stores
from tests.support.sinks import GO_ON, query


@pytest.fixture
def engine(stores: Stores) -> Iterator[Engine]:
    engine = connect(stores.postgres)
    yield engine
    engine.dispose()


@pytest.fixture
def history(stores: Stores, engine: Engine) -> History:
    made = History(stores, engine, random.Random(8))
    for _ in range(6):
        made.live()
    return made


def lake_command(postgres: str, lake: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "tickwell", "lake", *arguments, "--lake", str(lake)]


def run(postgres: str, lake: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TICKWELL_POSTGRES": postgres}
    command = lake_command(postgres, lake, *arguments)
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def verified(postgres: str, lake: Path) -> Verified:
    return LakeVerification(postgres, lake, rows_a_group=5).run(lambda _: None, GO_ON)


def test_an_export_is_the_same_as_postgres(
    stores: Stores, history: History, tmp_path: Path
) -> None:
    history.record_version()
    history.live()
    history.backfill()
    exported(stores.postgres, tmp_path)
    found = verified(stores.postgres, tmp_path)
    assert (found.differences, found.changed, found.unverifiable) == ((), 0, 0)
    assert found.rows == len(in_postgres(stores.postgres))
    assert found.finished


def other_value(table: pa.Table) -> pa.Table:
    values = [1e300, *table["price"].to_pylist()[1:]]
    return table.set_column(table.schema.get_field_index("price"), "price", [values])


def nan(table: pa.Table) -> pa.Table:
    values = [float("nan"), *table["price"].to_pylist()[1:]]
    return table.set_column(table.schema.get_field_index("price"), "price", [values])


def other_zero(table: pa.Table) -> pa.Table:
    """Zeros with another sign, which compare as equal."""
    values = [-0.0 if value == 0 else value for value in table["price"].to_pylist()]
    assert 0.0 in values
    return table.set_column(table.schema.get_field_index("price"), "price", [values])


def fewer_rows(table: pa.Table) -> pa.Table:
    return table.slice(0, len(table) - 1)


def more_rows(table: pa.Table) -> pa.Table:
    return pa.concat_tables([table, table.slice(0, 1)])


def fewer_columns(table: pa.Table) -> pa.Table:
    return table.drop_columns(["index"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (other_value, "rows differ in price"),
        (nan, "NaN"),
        (other_zero, "rows differ in price"),
        (fewer_rows, "rows less than Postgres"),
        (more_rows, "rows that Postgres lacks"),
        (fewer_columns, "its columns are others"),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_a_file_with_something_else_is_found(
    stores: Stores,
    history: History,
    tmp_path: Path,
    change: Callable[[pa.Table], pa.Table],
    said: str,
) -> None:
    """By its digest; and where that was put on record as well, by its rows."""
    exported(stores.postgres, tmp_path)
    path = max(files_of(tmp_path), key=lambda one: pq.read_metadata(one).num_rows)
    name = str(path.relative_to(tmp_path))
    pq.write_table(change(pq.ParquetFile(path).read()), path)
    (found,) = verified(stores.postgres, tmp_path).differences
    assert (found.path, found.what) == (name, "its digest is another one")
    stores.execute(
        "UPDATE tickwell.lake_files SET sha256 = sha256(%s) WHERE path = %s",
        *(path.read_bytes(), name),
    )
    found, *_ = verified(stores.postgres, tmp_path).differences
    assert found.path == name
    assert said in found.what


def test_a_day_that_was_changed_is_not_compared(
    stores: Stores, history: History, engine: Engine, tmp_path: Path
) -> None:
    exported(stores.postgres, tmp_path)
    before = verified(stores.postgres, tmp_path)
    history.live()
    assert "changed" in states(engine, tmp_path).values()
    found = verified(stores.postgres, tmp_path)
    assert found.changed > 0
    assert found.differences == ()
    assert found.rows < before.rows


def test_a_file_that_is_gone_is_found_and_written_again(
    stores: Stores, history: History, engine: Engine, tmp_path: Path
) -> None:
    exported(stores.postgres, tmp_path)
    files_of(tmp_path)[0].unlink()
    (found,) = verified(stores.postgres, tmp_path).differences
    assert found.what == "the file is gone"
    assert list(states(engine, tmp_path).values()).count("file gone") == 1
    assert exported(stores.postgres, tmp_path).days == 1
    assert in_lake(tmp_path) == in_postgres(stores.postgres)


def test_what_postgres_lost_stays_in_the_lake(
    stores: Stores, history: History, tmp_path: Path
) -> None:
    """A tick that comes for a day whose rows were dropped does not replace the day by itself."""
    exported(stores.postgres, tmp_path)
    rows = in_lake(tmp_path)
    stores.execute("DELETE FROM tickwell.feature_rows")
    found = verified(stores.postgres, tmp_path)
    assert (found.unverifiable, found.rows, found.differences) == (len(rows), 0, ())
    stores.execute("UPDATE tickwell.day_changes SET changes = changes + 1")
    done = exported(stores.postgres, tmp_path)
    assert len(done.refused) == done.of > 0
    assert in_lake(tmp_path) == rows


def test_rows_from_before_days_were_counted_are_exported(
    stores: Stores, history: History, tmp_path: Path
) -> None:
    stores.execute("TRUNCATE tickwell.day_changes, tickwell.day_scans")
    exported(stores.postgres, tmp_path)
    assert in_lake(tmp_path) == in_postgres(stores.postgres)
    assert query(stores.postgres, "SELECT DISTINCT writer FROM tickwell.day_changes") == [("scan",)]
    assert exported(stores.postgres, tmp_path).days == 0


def test_killed_at_any_instant_files_are_whole(
    stores: Stores, history: History, tmp_path: Path
) -> None:
    for _ in range(20):
        history.live(200, 60)
    there, chance = in_postgres(stores.postgres), random.Random(4)
    seconds = 4.0
    for _ in range(6):
        process = subprocess.Popen(
            lake_command(stores.postgres, tmp_path, "export"),
            env={**os.environ, "TICKWELL_POSTGRES": stores.postgres},
            stderr=subprocess.DEVNULL,
        )
        try:
            process.wait(chance.uniform(seconds / 2, seconds))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        found = in_lake(tmp_path) if tmp_path.is_dir() else {}
        assert found.items() <= there.items()
    done = run(stores.postgres, tmp_path, "export")
    assert done.returncode == 0, done.stderr
    assert in_lake(tmp_path) == there
    assert list((tmp_path / UNFINISHED).iterdir()) == []


def test_how_the_commands_end(stores: Stores, history: History, tmp_path: Path) -> None:
    nowhere = run(stores.postgres, tmp_path / "none", "verify")
    assert nowhere.returncode == 2
    assert "there is no lake" in nowhere.stderr
    status = run(stores.postgres, tmp_path, "status", "--json")
    assert status.returncode == 0, status.stderr
    price = next(one for one in json.loads(status.stdout) if one["source"] == "price")
    assert price["missing"].keys() == {"not exported"}
    export = run(stores.postgres, tmp_path, "export", "--json")
    assert export.returncode == 0, export.stderr
    assert json.loads(export.stdout)["days"] == len(price["missing"]["not exported"])
    assert run(stores.postgres, tmp_path, "verify", "--json").returncode == 0
    status = run(stores.postgres, tmp_path, "status", "--json")
    price = next(one for one in json.loads(status.stdout) if one["source"] == "price")
    assert (price["missing"], price["rows"]) == ({}, len(in_postgres(stores.postgres)))
    path = files_of(tmp_path)[0]
    path.write_bytes(path.read_bytes() + b"x")
    different = run(stores.postgres, tmp_path, "verify")
    assert different.returncode == 1
    assert "digest" in different.stderr
    assert "day such as" in run(stores.postgres, tmp_path, "export", "--since", "today").stderr


def test_two_do_not_export_at_once(stores: Stores, history: History, tmp_path: Path) -> None:
    engine = connect(stores.postgres)
    with engine.connect() as connection:
        connection.exec_driver_sql("SELECT pg_advisory_lock(7242019024)")
        other = run(stores.postgres, tmp_path, "export")
    engine.dispose()
    assert other.returncode == 1
    assert "another process" in other.stderr


def test_days_that_are_not_over_wait(stores: Stores, history: History, tmp_path: Path) -> None:
    today_ms = round(time.time() * 1000)
    history.at_ms = today_ms
    history.live(30, 0)
    assert run(stores.postgres, tmp_path, "export").returncode == 0
    days = {row.event_time // (86_400 * 10**9) for row in in_lake(tmp_path)}
    assert today_ms // 86_400_000 not in days
    rows = run(stores.postgres, tmp_path, "status", "--json")
    price = next(one for one in json.loads(rows.stdout) if one["source"] == "price")
    assert price["open_days"] >= 1


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


def test_a_full_disk_leaves_whole_files(stores: Stores, history: History, small: Path) -> None:
    for _ in range(4):
        history.live(60, 60)
    there = in_postgres(stores.postgres)
    export = run(stores.postgres, small, "export")
    assert export.returncode == 1
    assert "could not be written" in export.stderr
    assert "Traceback" not in export.stderr
    assert in_lake(small).items() < there.items()
