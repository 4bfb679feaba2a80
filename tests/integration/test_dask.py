"""Loads and training sets on the machines of a Dask cluster: what one process makes, to the bit."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from threading import Event
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.load.loads import Loads, alone
from pipelines.replay.replay import Done
from serving.history.building import build
from serving.history.snapshot import Elsewhere, LakeReads
from serving.history.wanted import Wanted
from tests.support.dask_clusters import local_cluster
from tests.support.file_loads import (
    GO_ON,
    Asked,
    as_csv,
    catalog_at,
    forget_everything,
    load_files,
    loaded_rows,
    loads_at,
    planner_of,
    ticks,
)
from tests.support.lakes import DAY_MS, exported
from tests.support.past import SYMBOLS, Market
from tests.support.rebuilds import Stores
from tickwell.dask_cluster import DaskCluster, PartFailed, dask_cluster
from tickwell.errors import TickwellError

ASKED = Asked(run_ticks=30)


@pytest.fixture(scope="module")
def scheduler() -> Iterator[Any]:
    with local_cluster() as cluster:
        yield cluster


@pytest.fixture
def cluster(scheduler: Any) -> Iterator[DaskCluster]:
    with dask_cluster(scheduler.scheduler_address) as found:
        yield found


def load_on(
    cluster: DaskCluster,
    postgres: str,
    files: list[Path],
    tell: Any = lambda told: None,
    stop: Event = GO_ON,
) -> Done:
    """Load files as the command does."""
    directory = files[0].with_name("spilled")
    directory.mkdir(exist_ok=True)
    cluster.check_folder(directory)
    with Loads.at(postgres) as loads, alone(postgres, "price"):
        planner = planner_of(postgres, loads, files, ASKED)
        plan = planner.plan(directory, lambda part, rows: None, GO_ON)
        left = [part for part in plan.parts if part.offsets]
        done = cluster.run(plan.load.run, left, tell, stop)
        if not stop.is_set():
            loads.finish(planner.load_id)
    return Done.sum([one for one in done if one is not None])


def test_it_stores_what_one_process_stores(
    cluster: DaskCluster, database: str, tmp_path: Path
) -> None:
    file = as_csv(tmp_path, ticks(2_000))
    done = load_files(database, [file], ASKED)
    whole = loaded_rows(database)
    forget_everything(database)
    told: list[int] = []

    def tell(progress: Mapping[int, Done]) -> None:
        told.append(Done.sum([*progress.values()]).offsets)

    assert load_on(cluster, database, [file], tell).rows == done.rows
    assert loaded_rows(database) == whole
    assert told == sorted(told)
    assert loads_at(database)[0].finished_at is not None


def test_a_worker_that_is_killed_is_replaced(
    scheduler: Any, cluster: DaskCluster, database: str, tmp_path: Path
) -> None:
    """What it had stored of its part stays, and another one goes on there."""
    file = as_csv(tmp_path, ticks(6_000))
    load_files(database, [file], ASKED)
    whole = loaded_rows(database)
    forget_everything(database)
    victims = [worker.pid for worker in scheduler.workers.values()][:1]

    def tell(progress: Mapping[int, Done]) -> None:
        if victims and Done.sum([*progress.values()]).offsets > 100:
            os.kill(victims.pop(), signal.SIGKILL)

    load_on(cluster, database, [file], tell)
    assert not victims
    assert loaded_rows(database) == whole


def test_stopped_it_goes_on_where_it_was(
    cluster: DaskCluster, database: str, tmp_path: Path
) -> None:
    file = as_csv(tmp_path, ticks(2_000))
    load_files(database, [file], ASKED)
    whole = loaded_rows(database)
    forget_everything(database)
    stop = Event()

    def tell(progress: Mapping[int, Done]) -> None:
        if progress:
            stop.set()

    load_on(cluster, database, [file], tell, stop)
    (begun,) = loads_at(database)
    assert 0 < begun.offsets < begun.ends
    load_on(cluster, database, [file])
    assert loaded_rows(database) == whole


def test_a_training_set_is_the_one_of_one_process(
    cluster: DaskCluster, stores: Stores, tmp_path: Path
) -> None:
    """Of days in the lake, and of one that only Postgres has."""
    chance = random.Random(1)
    market = Market(stores, chance, catalog_at(stores.postgres))
    for day in range(6):
        market.tick("price", 30)
        market.at_ms += DAY_MS
        if day == 4:
            exported(stores.postgres, tmp_path / "lake")
    moments = [market.at_ms - chance.randrange(7 * DAY_MS) for _ in range(400)]
    entities, out = tmp_path / "entities.parquet", tmp_path / "set.parquet"
    stamps = pa.array(moments).cast(pa.timestamp("ms", "UTC"))
    names = [chance.choice([*SYMBOLS, "nobody"]) for _ in moments]
    pq.write_table(pa.table({"symbol": names, "timestamp": stamps}), entities)
    wanted = Wanted(["current_price", "price_volatility"], event_times=True, allow_open=True)
    sent: list[int] = []

    def run(job: Any, parts: Sequence[Any], tell: Any, stop: Any) -> Sequence[Any]:
        sent.append(len(parts))
        return cluster.run(job, parts, tell, stop)

    tables = []
    for elsewhere in (None, Elsewhere(run, cluster.workers, fewest_rows=1)):
        lake = LakeReads(tmp_path / "lake", 0, 1e9, elsewhere=elsewhere)
        told: list[int] = []
        report = build(
            *((stores.postgres, lake), (entities, out), wanted),
            *(lambda done, _, told=told: told.append(done), GO_ON),
        )
        assert report.plans["price"] == "sweep"
        assert told == sorted(told)
        tables.append(pq.read_table(out).replace_schema_metadata())
    assert tables[0].equals(tables[1])
    assert sum(sent) > 2
    assert tables[0]["current_price"].null_count < 300


def failing(part: str, tell: Any, stop: Any) -> None:
    if part == "bad":
        raise TickwellError("the part is bad: give another one")


def test_what_goes_wrong_is_said(cluster: DaskCluster, scheduler: Any, tmp_path: Path) -> None:
    with pytest.raises(PartFailed, match="the part is bad: give another one"):
        cluster.run(failing, ["good", "bad"], lambda told: None, GO_ON)
    with (
        pytest.raises(TickwellError, match=r"nobody answers there.*tcp://10\.0\.0\.5:8786"),
        dask_cluster("tcp://127.0.0.1:9", seconds=0.5),
    ):
        pass
