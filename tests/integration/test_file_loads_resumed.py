"""Loads that are stopped or killed, and beside others."""

from __future__ import annotations

import itertools
import pickle
import random
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from threading import Event
from uuid import UUID

import pytest
from sqlalchemy import Engine

from pipelines.errors import PipelineError
from pipelines.load.errors import (
    LoadBackfilled,
    LoadElsewhere,
    LoadFinished,
    LoadForgotten,
    LoadMoved,
    LoadUnfinished,
)
from pipelines.load.forgetting import Forgetting
from pipelines.load.loads import Loads, alone
from pipelines.replay.replay import Done
from registry.lifecycle.audit import By
from registry.lifecycle.registry import Registry
from serving.history.explaining import Explainer
from serving.history.snapshot import snapshot
from serving.history.window_ticks import TickKey
from tests.support.backfills import backfill
from tests.support.file_loads import (
    GO_ON,
    Asked,
    as_csv,
    forget_everything,
    load_files,
    loaded_rows,
    loads_at,
    planner_of,
    run,
    ticks,
    without_origins,
)
from tests.support.pipeline import wait_for
from tests.support.sinks import query
from tests.support.tick_files import TS

ASKED = Asked(run_ticks=30)
DAY = 86_400_000
"""Milliseconds."""

HOMES = "SELECT entity, topic_id::text, partition FROM tickwell.entities ORDER BY 1"
KILLED = """
import pickle, sys
from threading import Event
from uuid import UUID
from pipelines.replay.jobs import run_in_jobs, run_ranges

load, parts, jobs = pickle.load(sys.stdin.buffer)
if jobs == 1:
    run_ranges(load, parts, lambda done: None, Event())
else:
    run_in_jobs(load, parts, jobs, lambda done: None, Event())
"""


def rejected(postgres: str) -> list[object]:
    columns = 'topic_id, partition, "offset", index, reason, detail, key, value'
    found = query(postgres, f"SELECT {columns} FROM tickwell.rejected_ticks ORDER BY 1, 2, 3, 4")
    return [tuple(bytes(c) if isinstance(c, memoryview) else c for c in row) for row in found]


def progress_of(postgres: str) -> int:
    statement = "SELECT coalesce(sum(next_offset), 0) FROM tickwell.load_partitions"
    ((offsets,),) = query(postgres, statement)
    return int(offsets)


def stop_after(stop: Event, offsets: int, done: Done) -> None:
    if done.offsets > offsets:
        stop.set()


def files_of(directory: Path) -> list[Path]:
    """Two files that cover the same times, with rows that are no ticks."""
    files = []
    for seed in (1, 2):
        file = as_csv(directory, ticks(2_000, seed), f"{seed}.csv")
        file.write_text(file.read_text() + "A,x,1,1\n" * 20)
        files.append(file)
    return files


def test_a_stopped_load_goes_on_where_it_was(database: str, tmp_path: Path) -> None:
    files = files_of(tmp_path)
    load_files(database, files, ASKED)
    whole = loaded_rows(database), rejected(database)
    forget_everything(database)
    steps = 0
    while not loads_at(database) or loads_at(database)[0].finished_at is None:
        stop, begun = Event(), progress_of(database)
        load_files(database, files, ASKED, partial(stop_after, stop, 900), stop)
        assert progress_of(database) > begun
        steps += 1
    assert steps > 2
    assert (loaded_rows(database), rejected(database)) == whole


def test_a_lost_connection_is_mended(database: str, tmp_path: Path) -> None:
    """Also one that is lost while a run is stored, whose outcome nobody knows then."""
    files = files_of(tmp_path)
    load_files(database, files, ASKED)
    whole = loaded_rows(database), rejected(database)
    forget_everything(database)
    lose = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name ="
        " 'tickwell load' AND datname = current_database() AND query NOT LIKE '%%advisory%%'"
    )
    reports = itertools.count(1)

    def report(done: Done) -> None:
        if next(reports) % 7 == 0:
            query(database, lose)

    load_files(database, files, ASKED, report)
    assert (loaded_rows(database), rejected(database)) == whole
    assert loads_at(database)[0].finished_at is not None


@pytest.mark.timeout(300)
@pytest.mark.parametrize("jobs", [2, pytest.param(1, marks=pytest.mark.long)])
def test_killed_at_any_instant_it_goes_on(database: str, tmp_path: Path, jobs: int) -> None:
    chance, files = random.Random(jobs), files_of(tmp_path)
    load_files(database, files, ASKED)
    whole = loaded_rows(database), rejected(database)
    (finished,) = loads_at(database)
    forget_everything(database)
    kills = 0
    while kills < 5:
        with Loads.at(database) as loads, tempfile.TemporaryDirectory() as directory:
            planner = planner_of(database, loads, files, ASKED)
            plan = planner.plan(Path(directory), lambda part, rows: None, GO_ON)
            left = [part for part in plan.parts if part.offsets]
            before = progress_of(database)
            process = subprocess.Popen([sys.executable, "-c", KILLED], stdin=subprocess.PIPE)
            assert process.stdin is not None
            with process.stdin as stdin:
                pickle.dump((plan.load, left, jobs), stdin)
            wait_for("progress", lambda n=before: progress_of(database) > n)
            time.sleep(chance.uniform(0, 0.05))
            kills += 1
            process.kill()
            process.wait()
    load_files(database, files, ASKED)
    assert (loaded_rows(database), rejected(database)) == whole
    (load,) = loads_at(database)
    assert load.finished_at is not None
    counts = ("offsets", "ends", "rows", "passed_over", "rejected")
    assert [getattr(load, name) for name in counts] == [getattr(finished, name) for name in counts]


def test_one_load_of_a_source_at_a_time(database: str, tmp_path: Path) -> None:
    file = as_csv(tmp_path, ticks(100))
    with alone(database, "price"), pytest.raises(LoadElsewhere):
        load_files(database, [file])
    assert load_files(database, [file]).rows > 0


def test_of_two_processes_with_one_load_the_slower_one_stores_nothing(
    database: str, tmp_path: Path
) -> None:
    """Behind a pool that gives sessions away both may believe that they are alone."""
    file = as_csv(tmp_path, ticks(300))
    with Loads.at(database) as loads, tempfile.TemporaryDirectory() as directory:
        planner = planner_of(database, loads, [file], ASKED)
        plan = planner.plan(Path(directory), lambda part, rows: None, GO_ON)
        stored: list[object] = []

        def overtaken(done: Done) -> None:
            if not stored:
                run(plan, 1, lambda done: None, GO_ON)
                stored.extend(loaded_rows(database))

        with pytest.raises(LoadMoved):
            run(plan, 1, overtaken, GO_ON)
        assert run(plan, 1, lambda done: None, GO_ON).rows == 0
    assert loaded_rows(database) == stored


def test_a_load_goes_on_in_the_row_schema_in_which_it_began(
    database: str, tmp_path: Path, engine: Engine
) -> None:
    file, stop = as_csv(tmp_path, ticks(600)), Event()
    load_files(database, [file], ASKED, lambda done: stop.set(), stop)
    registry = Registry(engine, By("ann"))
    registry.create_feature_version(
        "price_sma_5", "2.0.0", {"expression": "mean(price, 6)"}, "1.0.0"
    )
    load_files(database, [file], ASKED)
    assert {row[0] for row in loaded_rows(database)} == {loads_at(database)[0].schema_id}


@pytest.mark.parametrize("older", ["begun meanwhile", "begun before, and done meanwhile"])
def test_a_load_that_goes_on_has_the_windows_of_when_it_began(
    database: str, tmp_path: Path, older: str
) -> None:
    """Also where entities that it has not begun got older ticks by another load meanwhile."""
    before = as_csv(tmp_path, ticks(400, 3, first=TS - DAY), "before.csv")
    file = as_csv(tmp_path, ticks(600), "later.csv")
    load_files(database, [file], ASKED)
    alone_stored = without_origins(loaded_rows(database))
    forget_everything(database)
    if older == "begun before, and done meanwhile":
        stop = Event()
        load_files(database, [before], ASKED, lambda done: stop.set(), stop)
    stop = Event()
    load_files(database, [file], ASKED, partial(stop_after, stop, 90), stop)
    load_files(database, [before], ASKED)
    load_files(database, [file], ASKED)
    first = TS * 10**6
    stored = without_origins(row for row in loaded_rows(database) if row[2] >= first)
    assert stored == alone_stored
    with snapshot(database) as seen:
        explainer = Explainer(seen)
        keys = [TickKey(row[2], row[3]) for row in loaded_rows(database) if row[1] == "H"]
        assert all(
            explainer.explain("price_sma_5", {"symbol": "H"}, tick=key).same for key in keys[::7]
        )


def test_rules_that_changed_meanwhile_are_told(database: str, tmp_path: Path) -> None:
    file, stop = as_csv(tmp_path, ticks(600)), Event()
    load_files(database, [file], ASKED, lambda done: stop.set(), stop)
    query(database, "UPDATE tickwell.loads SET rules = rules + 1 RETURNING 1")
    with pytest.raises(PipelineError, match="rules of price were changed"):
        load_files(database, [file], ASKED)


def test_what_is_left_of_a_load_is_not_loaded_by_another_one(database: str, tmp_path: Path) -> None:
    """The rest of the first would meet rows that nobody has compared it with."""
    made, later = ticks(600), ticks(100, 5, first=TS + 86_400_000)
    stop = Event()
    load_files(database, [as_csv(tmp_path, made)], ASKED, lambda done: stop.set(), stop)
    before = loaded_rows(database)
    assert before
    more = as_csv(tmp_path, [*made, *later], "more.csv")
    for dry_run in (True, False):
        with pytest.raises(LoadUnfinished, match=r"with the same files \(t\.csv\)"):
            load_files(database, [more], ASKED._replace(dry_run=dry_run))
    assert loaded_rows(database) == before
    load_files(database, [as_csv(tmp_path, later, "later.csv")], ASKED)  # of another time
    load_files(database, [as_csv(tmp_path, made)], ASKED)
    load_files(database, [more], ASKED)
    assert all(one.finished_at is not None for one in loads_at(database))


FORGETTING = """
import os, sys
from threading import Event
from uuid import UUID
from pipelines.load.forgetting import Forgetting
from pipelines.load.loads import Loads
from registry.lifecycle.audit import By

postgres, load, rows, kills = sys.argv[1], bytes.fromhex(sys.argv[2]), 40, int(sys.argv[3])

def report(gone):
    if gone >= kills:
        os.kill(os.getpid(), 9)

with Loads.at(postgres) as loads:
    Forgetting(postgres, loads, rows).forget(load, By("ann"), report, Event())
"""
KEPT = (
    "feature_rows",
    "entities",
    "rejected_ticks",
    "loads",
    "load_partitions",
    "load_overlaps",
    "active_columns",
)


def stored_but_homes(postgres: str) -> list[object]:
    """All that loads store, and what views show of it; homes are apart."""
    tables = [
        query(postgres, f"SELECT t::text FROM tickwell.{table} AS t ORDER BY 1")
        for table in KEPT
        if table != "entities"
    ]
    shown = "SELECT entity, event_time, sequence FROM features.price ORDER BY 1, 2, 3"
    return [*tables, query(postgres, shown)]


def forget(postgres: str, load: bytes, stop: Event = GO_ON, rows: int = 40) -> int | None:
    with Loads.at(postgres) as loads:
        forgetting = Forgetting(postgres, loads, rows)
        return forgetting.forget(load, By("ann"), lambda gone: None, stop)


def test_a_load_that_is_given_up_leaves_nothing(database: str, tmp_path: Path) -> None:
    """Killed in the middle it goes on; nobody loads these files until it is done."""
    before = as_csv(tmp_path, ticks(300, 3, "ABC", first=TS - DAY), "before.csv")
    load_files(database, [before], ASKED)
    kept, homes = stored_but_homes(database), query(database, HOMES)
    file = as_csv(tmp_path, [*ticks(900), *ticks(300, 3, "ABC", first=TS - DAY)], "given up.csv")
    file.write_text(file.read_text() + "A,x,1,1\n" * 20)
    stop = Event()
    load_files(database, [file], ASKED, partial(stop_after, stop, 400), stop)
    begun = next(one for one in loads_at(database) if one.finished_at is None)
    rows = len(loaded_rows(database)) - len(kept[0])  # type: ignore[arg-type]
    assert rows > 200
    assert query(database, HOMES) != homes
    changes = "SELECT coalesce(sum(changes), 0) FROM tickwell.day_changes WHERE writer = 'load'"
    ((counted,),) = query(database, changes)

    killed = [sys.executable, "-c", FORGETTING, database, begun.load_id.hex(), "80"]
    assert subprocess.run(killed, check=False).returncode == -9
    assert len(loaded_rows(database)) - len(kept[0]) == rows - 80  # type: ignore[arg-type]
    with pytest.raises(LoadForgotten, match=f"--forget {begun.id_shown}"):
        load_files(database, [file], ASKED)
    stop = Event()
    stop.set()
    assert forget(database, begun.load_id, stop) == 0
    assert forget(database, begun.load_id) == rows - 80
    assert (stored_but_homes(database), query(database, HOMES)) == (kept, homes)
    ((counted_then,),) = query(database, changes)
    assert counted_then >= counted + rows // 40
    told = query(
        database, "SELECT subject, before FROM tickwell.audit WHERE action = 'forget load'"
    )
    assert [(subject, given["load"]) for subject, given in told] == [
        ("source:price", begun.load_id.hex())
    ]
    assert forget(database, begun.load_id) is None
    load_files(database, [file], ASKED)
    assert loads_at(database)[0].finished_at is not None
    with pytest.raises(LoadFinished, match="is done"):
        forget(database, begun.load_id)


def test_the_command_gives_up_what_the_list_shows(database: str, tmp_path: Path) -> None:
    stop = Event()
    file = as_csv(tmp_path, ticks(600), "given up.csv")
    load_files(database, [file], ASKED, lambda done: stop.set(), stop)
    (begun,) = loads_at(database)

    def command(*arguments: str) -> tuple[int, str]:
        environment = {"TICKWELL_POSTGRES": database, "TICKWELL_DATA": "/nonexistent", "PATH": ""}
        done = subprocess.run(
            [sys.executable, "-m", "tickwell", "replay", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    rows = len(loaded_rows(database))
    assert rows
    code, said = command("--forget", begun.id_shown)
    assert (code, f"load {begun.id_shown} of price is forgotten: {rows} rows are gone" in said) == (
        *(0, True),
    ), said
    assert not loads_at(database)
    code, said = command("--forget", begun.load_id.hex())
    assert (code, "is forgotten already" in said) == (0, True)
    code, said = command("--forget", "0000")
    assert (code, "there is no such load" in said) == (1, True)


def test_entities_of_a_load_that_is_given_up_are_at_home_in_another_one(
    database: str, tmp_path: Path
) -> None:
    stop = Event()
    file = as_csv(tmp_path, ticks(600), "given up.csv")
    load_files(database, [file], ASKED, lambda done: stop.set(), stop)
    begun = loads_at(database)[0].load_id
    homeless = query(database, HOMES)
    others = as_csv(tmp_path, ticks(300, 3, "ABCDEFGH", first=TS - DAY), "older.csv")
    load_files(database, [others], ASKED)
    assert set(homeless) <= set(query(database, HOMES))
    assert forget(database, begun)
    (load,) = loads_at(database)
    assert {home for _, home, _ in query(database, HOMES)} == {str(UUID(bytes=load.load_id))}
    assert {entity for entity, _, _ in query(database, HOMES)} == set("ABCDEFGH")


def test_a_load_whose_ticks_a_backfill_has_is_not_given_up(
    database: str, tmp_path: Path, engine: Engine
) -> None:
    stop = Event()
    file = as_csv(tmp_path, ticks(600), "given up.csv")
    load_files(database, [file], ASKED, lambda done: stop.set(), stop)
    schema = {"source": "price", "expression": "mean(price, 7)"}
    Registry(engine, By("ann")).create_feature_version("price_sma_7", "1.0.0", schema)
    backfill(engine, database, "price_sma_7@1.0.0")
    with pytest.raises(LoadBackfilled, match=r"price_sma_7@1\.0\.0 was backfilled"):
        forget(database, loads_at(database)[0].load_id)
    load_files(database, [file], ASKED)
    assert loads_at(database)[0].finished_at is not None
