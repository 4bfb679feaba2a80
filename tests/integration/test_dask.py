"""Loads on the machines of a Dask cluster: what is stored is what one process stores."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from pipelines.load.loads import Loads, alone
from pipelines.replay.replay import Done
from tests.support.dask_clusters import local_cluster
from tests.support.file_loads import (
    GO_ON,
    Asked,
    as_csv,
    forget_everything,
    load_files,
    loaded_rows,
    loads_at,
    planner_of,
    ticks,
)
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
