"""Drift of a market that is made to drift, or not: a week of ticks, of which six days are training.

Of returns it is known what they are drawn from. Prices are a random walk, so their level differs
from day to day whatever the returns do.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipelines.compute.run_computation import RunComputation
from pipelines.kafka.topics import Topic
from pipelines.live.materializer import Materializer
from pipelines.stores.postgres.offline_sink import OfflineSink
from registry.language.program import compile_program
from registry.source_rules import SourceRules
from serving.errors import InvalidRequest
from serving.history.building import build
from serving.history.drift import FeatureDrift, Verdict, drift
from serving.history.snapshot import NO_LAKE
from serving.history.stopped import Stopped
from serving.history.wanted import Wanted
from tests.oracle.messages import Record
from tests.support.logs import TOPIC_ID, runs
from tests.support.rebuilds import Stores
from tests.support.sinks import GO_ON

DAY_MS, STEP_MS = 86_400_000, 75_000
BEGIN_MS = 20_000 * DAY_MS
STEPS = DAY_MS // STEP_MS
"""Ticks of a symbol a day."""

TRAINED, SYMBOLS = 6, 10
WINDOW = 21
"""Prices of 20 returns."""

FEATURES = ["price_volatility", "current_price"]
NO_STOP = Event()


class Market:
    """Ten symbols that tick together; `store` adds days in which returns have a deviation."""

    def __init__(self, stores: Stores) -> None:
        self.stores = stores
        self.days = 0
        self._chance = np.random.default_rng(5)
        self._last = np.full(SYMBOLS, 100.0)
        self._sink = stores.keep(OfflineSink(stores.postgres))
        self._sink.settle(Topic("ticks.price", TOPIC_ID, 1))
        catalog = stores.catalog
        schema = catalog.schemas[catalog.writing["price"]]
        rules, program = SourceRules.of(catalog, "price"), compile_program(catalog, schema)
        self._worker = Materializer(RunComputation(rules, schema, program, 1_000), self._sink)
        self._offset = 0

    def store(self, days: int, sigma: float, symbols: int = SYMBOLS) -> None:
        steps = days * STEPS
        returns = sigma * self._chance.standard_normal((steps, SYMBOLS))
        prices = self._last * np.exp(np.cumsum(returns, axis=0))
        self._last = prices[-1]
        begin = BEGIN_MS + self.days * DAY_MS
        records = []
        for step, row in enumerate(prices.tolist()):
            at = begin + step * STEP_MS
            for symbol, price in enumerate(row[:symbols]):
                name = f"S{symbol}"
                value = json.dumps({"symbol": name, "price": price, "ts": at}).encode()
                number = self._offset + len(records)
                records.append(Record("ticks.price", 0, number, at, name.encode(), value))
        for run in runs(records, range(10_000, len(records), 10_000), self._offset):
            self._worker.materialize(replace(run, topic="ticks.price"), GO_ON)
        self._offset += len(records)
        self.days += days

    def frame(self) -> pa.Table:
        """A row for each symbol at each moment at which they ticked."""
        steps = np.arange(self.days * STEPS) * STEP_MS + BEGIN_MS
        symbols = [f"S{number}" for number in range(SYMBOLS)] * len(steps)
        stamps = pa.array(np.repeat(steps * 10**6, SYMBOLS)).cast(pa.timestamp("ns", "UTC"))
        return pa.table({"symbol": symbols, "at": stamps})


def set_of(market: Market, place: Path, frame: pa.Table, **form: Any) -> Path:
    """A training set of these rows."""
    pq.write_table(frame, place / "entities.parquet")
    file, wanted = place / "set.parquet", Wanted(FEATURES, "at", allow_open=True, **form)
    entities, postgres = place / "entities.parquet", market.stores.postgres
    build((postgres, NO_LAKE), (entities, file), wanted, lambda *_: None, NO_STOP)
    return file


def end_of(day: int) -> int:
    """The last nanosecond of a day, of which the first is 0."""
    return (BEGIN_MS + (day + 1) * DAY_MS) * 10**6 - 1


def found_on(market: Market, file: Path, day: int, levels: bool = False) -> dict[str, FeatureDrift]:
    since, until = end_of(day - 1), end_of(day)
    return drift(
        (market.stores.postgres, NO_LAKE), file, since, until, levels, lambda *_: None, NO_STOP
    )


@pytest.mark.timeout(240)
def test_what_has_drifted_and_what_has_not(stores: Stores, tmp_path: Path) -> None:
    market = Market(stores)
    market.store(days=TRAINED, sigma=0.001)
    file = set_of(market, tmp_path, market.frame(), event_times=True)
    market.store(days=1, sigma=0.001)
    market.store(days=1, sigma=0.0015)
    market.store(days=1, sigma=0.001, symbols=SYMBOLS // 2)

    alike = found_on(market, file, TRAINED)
    volatility = alike["price_volatility"]
    assert volatility.verdict is Verdict.ALIKE, volatility
    assert volatility.threshold is not None
    assert volatility.threshold.days >= TRAINED - 1  # windows fill up on the first day
    windows = -(-STEPS // WINDOW) * SYMBOLS
    assert windows * 0.9 < volatility.now <= windows
    assert windows * TRAINED * 0.9 < volatility.training <= windows * TRAINED
    assert not any(one.has_drifted for one in alike.values())
    assert alike["current_price"].verdict is Verdict.LEVEL
    each = alike["current_price"].now  # its window is one tick; few are not asked about again
    assert 0.99 * STEPS * SYMBOLS < each <= STEPS * SYMBOLS

    judged = found_on(market, file, TRAINED, levels=True)
    assert judged["current_price"].verdict in (Verdict.DRIFT, Verdict.ALIKE)
    assert judged["price_volatility"].index == volatility.index  # the same draw finds the same

    wilder = found_on(market, file, TRAINED + 1)
    assert wilder["price_volatility"].verdict is Verdict.DRIFT
    assert wilder["price_volatility"].worse == []
    assert wilder["current_price"].has_drifted is False

    silent = found_on(market, file, TRAINED + 2)["current_price"]
    assert silent.worse == ["stale"]
    assert silent.shares["stale"].training == 0
    assert silent.shares["stale"].now == pytest.approx(0.5, abs=0.02)

    common = [*("drift", file), *("--since", rfc_3339(end_of(TRAINED)))]
    common += ["--until", rfc_3339(end_of(TRAINED + 1))]
    png, prom = tmp_path / "drift.png", tmp_path / "drift.prom"
    ran = tickwell(stores.postgres, *common, "--json", "--png", png, "--metrics", prom)
    assert ran.returncode == 1, ran.stderr
    assert "price_volatility differ from training" in ran.stderr
    told = json.loads(ran.stdout)["features"]["price_volatility"]
    assert told["verdict"] == "drift"
    assert sum(told["bins"]["now"]) == told["now"]
    assert png.read_bytes().startswith(b"\x89PNG")
    samples = {
        (one.name, one.labels.get("feature")): one.value
        for family in text_string_to_metric_families(prom.read_text())
        for one in family.samples
    }
    assert samples["tickwell_drift_drifted", "price_volatility"] == 1
    assert samples["tickwell_drift_drifted", "current_price"] == 0
    assert samples["tickwell_drift_index", "price_volatility"] == told["index"]
    same = tickwell(
        stores.postgres, "drift", file, "--since", "24h", "--until", rfc_3339(end_of(TRAINED))
    )
    assert same.returncode == 0, same.stderr
    assert "none has drifted" in same.stderr


def test_too_few_values_and_what_cannot_be_compared(stores: Stores, tmp_path: Path) -> None:
    market = Market(stores)
    market.store(days=1, sigma=0.001)
    frame = market.frame()
    file = set_of(market, tmp_path, frame.slice(0, 3_000))
    market.store(days=1, sigma=0.1)
    few = found_on(market, file, 1)["price_volatility"]
    assert few.verdict is Verdict.TOO_FEW
    assert few.index is None
    assert not few.has_drifted
    with pytest.raises(InvalidRequest, match="nothing lies between"):
        drift((stores.postgres, NO_LAKE), file, 5, 5, False, print, NO_STOP)
    stop = Event()
    stop.set()
    with pytest.raises(Stopped):
        drift((stores.postgres, NO_LAKE), file, 1, end_of(1), False, lambda *_: None, stop)
    plain = tickwell(stores.postgres, "drift", tmp_path / "entities.parquet")
    assert plain.returncode == 2
    assert "is no training set" in plain.stderr
    odd = tickwell(stores.postgres, "drift", file, "--since", "yesterday")
    assert odd.returncode == 2
    assert "yesterday" in odd.stderr


def test_stale_values_are_compared_as_the_set_has_them(stores: Stores, tmp_path: Path) -> None:
    """Of a set that has null for what is stale, what is stale now does not count either."""
    market = Market(stores)
    market.store(days=1, sigma=0.001)
    frame = market.frame()
    kept = set_of(market, tmp_path, frame, stale="keep")
    market.store(days=1, sigma=0.001, symbols=SYMBOLS // 2)
    with_stale = found_on(market, kept, 1)["current_price"]
    (tmp_path / "other").mkdir()
    null = set_of(market, tmp_path / "other", frame, stale="null")
    without = found_on(market, null, 1)["current_price"]
    assert without.shares == with_stale.shares
    assert with_stale.now == without.now + SYMBOLS // 2  # each silent symbol's last price


def rfc_3339(moment: int) -> str:
    return datetime.fromtimestamp(moment // 10**9, UTC).isoformat()


def tickwell(postgres: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tickwell", *map(str, arguments)],
        env={"TICKWELL_POSTGRES": postgres, "PATH": "", "TICKWELL_DATA": "/nonexistent"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
