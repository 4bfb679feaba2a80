"""`tickwell replay --from`: what the command says, and real processes that are killed."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.file_loads import as_csv, as_parquet, live_rows, loaded_rows, loads_at, ticks
from tests.support.load import random_ticks
from tests.support.pipeline import Pipeline, wait_for
from tests.support.tick_files import TS, csv_of

DELAY = ("--source", "price", "--delay", "250ms")


def test_what_it_says(running: Pipeline, tmp_path: Path) -> None:
    postgres = running.settings.postgres
    file = as_csv(tmp_path, ticks(500), "old.csv")
    said = running.run_tickwell("replay", "--from", str(file), *DELAY, "--dry-run")
    assert "500 rows, 2023-11-14 to 2023-11-14, 8 entities: " in said
    assert "dry run: nothing was stored" in said
    assert not loads_at(postgres)

    said = running.run_tickwell("replay", "--from", str(file), *DELAY, "--jobs", "2")
    (load,) = loads_at(postgres)
    assert f"{load.rows} rows are stored, 0 passed over" in said
    assert f"rejected: {load.rejected} duplicate" in said
    before = loaded_rows(postgres)

    said = running.run_tickwell("replay", "--from", file.as_uri(), *DELAY)
    assert f"load {load.load_id.hex()[:8]} of price is loaded already" in said
    assert loaded_rows(postgres) == before

    listed = running.run_tickwell("replay", "--list")
    assert load.load_id.hex()[:8] in listed
    assert " done " in listed
    assert "old.csv" in listed


def test_what_is_refused(running: Pipeline, tmp_path: Path) -> None:
    file = str(as_csv(tmp_path, ticks(50)))
    refused = running.refused
    assert "one of --known-at COLUMN and --delay" in refused(
        "replay", "--from", file, "--source", "price"
    )
    assert "--source says what the rows are" in refused("replay", "--from", file, "--delay", "1s")
    assert "--cold: a load of files has no such bounds" in refused(
        "replay", "--from", file, *DELAY, "--cold"
    )
    assert "need --from" in refused("replay", "--ts-unit", "s")
    assert "there is no source prize" in refused(
        "replay", "--from", file, "--source", "prize", "--delay", "1s"
    )
    assert "it is a duration" in refused(
        "replay", "--from", file, "--source", "price", "--delay", "soon"
    )
    assert "has no column known" in refused(
        "replay", "--from", file, "--source", "price", "--known-at", "known"
    )
    remote = refused("replay", "--from", "sftp://ann:secret@example.invalid/t.csv", *DELAY)
    assert "tickwell[remote]" in remote
    assert "secret" not in remote
    running.run_tickwell("replay", "--from", file, *DELAY)
    other = csv_of(tmp_path, "symbol,price,ts", f"A,9999,{TS}", name="other.csv")
    assert "not equal to what is stored, of 1 entities: A " in refused(
        "replay", "--from", str(other), *DELAY
    )


@pytest.mark.timeout(300)
def test_live_and_a_load_that_is_killed_at_once(running: Pipeline, tmp_path: Path) -> None:
    """Live stores what it stores without a load, and the load what it stores alone."""
    postgres = running.settings.postgres
    file = as_parquet(tmp_path, ticks(40_000))
    command = ("replay", "--from", str(file), *DELAY, "--no-throttle")
    running.start_worker("offline")
    chance = random.Random(1)
    kills = 0
    for number in range(4):
        process = running.start("load", *command, "--jobs", "2")
        log = random_ticks(random.Random(number), time.time_ns() // 10**6)
        running.produce("price", log)
        loaded = len(loaded_rows(postgres))
        wait_for(
            "it goes on",
            lambda n=loaded, p=process: len(loaded_rows(postgres)) > n or p.poll() is not None,
        )
        time.sleep(chance.uniform(0, 0.1))
        kills += process.poll() is None
        running.kill("load")
    assert kills > 0
    running.run_tickwell(*command)
    running.wait_drained("offline")
    (load,) = loads_at(postgres)
    assert load.finished_at is not None
    assert load.rows == len(loaded_rows(postgres))
    before = live_rows(postgres)
    assert len(before) > 100
    running.stop()
    said = running.run_tickwell("replay", "--source", "price")
    assert " 0 of them new, the others stored already and equal" in said
    assert live_rows(postgres) == before


@pytest.mark.timeout(200)
def test_stopped_by_a_signal_it_says_how_to_go_on(running: Pipeline, tmp_path: Path) -> None:
    file = as_parquet(tmp_path, ticks(200_000))
    process = running.start("load", "replay", "--from", str(file), *DELAY, "--no-throttle")
    wait_for(
        "it goes on",
        lambda: any(load.offsets for load in loads_at(running.settings.postgres)),
    )
    process.send_signal(signal.SIGINT)
    try:
        code = process.wait(60)
    except subprocess.TimeoutExpired:
        pytest.fail("it does not end")
    running.processes.clear()
    said = (running.logs / "load.log").read_text()
    assert code in (0, 130)
    assert code == 0 or "the same command goes on from here" in said
    assert "Traceback" not in said
