"""What alerts are made of: readiness, stores, workers and sources as a server sees them."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import cast

import pytest

from registry.features_file import read
from registry.formats.heartbeat import Heartbeat, PartitionLag
from serving.api.routes import Server
from serving.features.lookup import Names
from serving.health_metrics import health_families
from serving.metrics import Metrics, Totals
from serving.process import ThisProcess
from serving.process_metrics import process_families
from serving.watch.catalog import CatalogWatch
from serving.watch.workers import WorkersWatch
from tests.support.served import catalog_of


class Catalogs:
    """A catalog that was read, or was not."""

    def __init__(self, ready: bool) -> None:
        self.ready = ready
        self.names = Names(catalog_of(read()))
        self.stores = {"postgres": "ok" if ready else "connection refused"}


def shown(*beats: Heartbeat, ready: bool = True, stopping: bool = False) -> Totals:
    workers = WorkersWatch({})
    workers.heartbeats, workers.stores, workers.answering = [*beats], {"redis": "ok"}, {"redis"}
    catalog = cast(CatalogWatch, Catalogs(ready))
    server = Server(catalog, workers, Metrics(list), ThisProcess(stopping=stopping))
    found = Totals(health_families(server)())
    asyncio.run(workers.close())
    return found


def beat(*topics: str, behind: float = 0.0, age: float = 0.0) -> Heartbeat:
    lag = tuple(PartitionLag(topic, 0, 1, 1, 0, behind) for topic in topics)
    partitions, at = dict.fromkeys(topics, 1), time.time() - age
    return Heartbeat("online", "one", 1, at, "running", at, lag=lag, partitions=partitions)


def test_a_source_lags_that_is_behind_or_of_which_nothing_is_known() -> None:
    lagging = "tickwell_source_lagging"
    found = shown(beat("ticks.price"), beat("ticks.volume", behind=60.0))
    assert found(lagging, sink="online", source="price") == 0.0
    assert found(lagging, sink="online", source="volume") == 1.0
    assert found(lagging, sink="online", source="position") == 1.0
    assert found(lagging, sink="offline") == 3.0


def test_a_worker_that_is_silent_is_not_alive() -> None:
    assert shown(beat())("tickwell_workers_alive", sink="online") == 1.0
    assert shown(beat(age=60.0))("tickwell_workers_alive", sink="online") == 0.0


def test_a_store_that_does_not_answer_is_down() -> None:
    found = shown(ready=False)
    assert found("tickwell_store_up", store="redis") == 1.0
    assert found("tickwell_store_up", store="postgres") == 0.0


@pytest.mark.parametrize(("stopping", "expected"), [(False, 1.0), (True, 0.0)])
def test_a_server_about_to_stop_is_not_ready(stopping: bool, expected: float) -> None:
    assert shown(stopping=stopping)("tickwell_ready") == expected


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read on Linux alone")
def test_what_the_process_takes() -> None:
    found = Totals(process_families())
    assert 10e6 < found("process_resident_memory_bytes") < 10e9
    assert found("process_cpu_seconds_total") > 0.0
