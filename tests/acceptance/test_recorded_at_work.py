"""Features that are recorded while real workers and a server work: nobody notices, but by them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from time import sleep

import httpx
import pytest

from serving.app import ServerOptions, create_app
from tests.support.checks import assert_no_difference
from tests.support.load import SYMBOLS, load
from tests.support.pipeline import Pipeline, wait_for
from tests.support.running_server import running as serving

OLD = ("current_price", "price_sma_5")
BOTH = ("online", "offline")


def declare(running: Pipeline, window: int) -> str:
    """Have the file say one feature more, and record it; returns its name."""
    name = f"mean_{window}"
    file = Path(running.settings.features)
    feature = {"name": name, "version": "1.0.0", "source": "price"}
    lines = [f'{key} = "{value}"' for key, value in feature.items()]
    text = "\n".join(["[[feature]]", *lines, f'expression = "mean(price, {window})"'])
    file.write_text(f"{file.read_text()}\n{text}\n")
    running.run_tickwell("features", "apply", "--yes")
    return name


def statuses(client: httpx.Client, *features: str) -> Counter[str]:
    entities = [{"symbol": symbol} for symbol in SYMBOLS]
    answer = client.post("/features/batch", json={"features": features, "entities": entities})
    values = [v for one in answer.json()["results"] for v in one["features"].values()]
    return Counter(value["status"] for value in values)


def are_there(client: httpx.Client, feature: str) -> Callable[[], bool]:
    """Whether the server knows it, and all symbols have a value of it."""

    def are_there() -> bool:
        known = client.get(f"/features/{feature}").status_code == 200
        return known and statuses(client, feature)["ok"] == len(SYMBOLS)

    return are_there


@contextmanager
def asking(url: str) -> Iterator[Counter[str]]:
    """Asks for features that were there before, again and again; counts the statuses."""
    counted, end = Counter[str](), Event()

    def ask() -> None:
        with httpx.Client(base_url=url, timeout=20) as client:
            while not end.is_set():
                counted.update(statuses(client, *OLD))
                sleep(0.005)

    thread = Thread(target=ask)
    thread.start()
    try:
        yield counted
    finally:
        end.set()
        thread.join()


@pytest.mark.timeout(240)
def test_nobody_restarts_and_nothing_is_missing(running: Pipeline, hot_redis: str) -> None:
    for sink in BOTH:
        for instance in ("one", "two"):
            running.start_worker(sink, instance)
    settings = running.settings
    options = ServerOptions(settings.redis, hot_redis, settings.postgres)
    n = len(OLD) * len(SYMBOLS)
    with (
        serving(create_app(options)) as url,
        httpx.Client(base_url=url, timeout=20) as client,
        load(running),
    ):
        wait_for("all values are there", lambda: statuses(client, *OLD)["ok"] == n)
        with asking(url) as counted:
            for window in (7, 60, 200):
                wait_for("its values are there", are_there(client, declare(running, window)))
            before = counted.total()
            wait_for("more is asked", lambda: counted.total() > before + 10 * n)
        # where others use the machine the pipeline may be late, and then says so
        assert counted.keys() <= {"ok", "lagging"}
        assert counted["ok"]
    assert all(process.poll() is None for process in running.processes.values())
    running.wait_drained(*BOTH)
    assert_no_difference(running)
    orders = running.query(
        'SELECT partition, array_agg(schema_id ORDER BY "offset") FROM ('
        'SELECT partition, "offset", index, min(schema_id) AS schema_id FROM tickwell.feature_rows'
        " WHERE schema_id IN (SELECT id FROM tickwell.row_schemas WHERE source = 'price')"
        " GROUP BY 1, 2, 3) AS tick GROUP BY partition"
    )
    assert all(schemas == sorted(schemas) for _, schemas in orders)
    assert len({schema for _, schemas in orders for schema in schemas}) == 4
