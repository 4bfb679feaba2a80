"""Training sets with the versions that were served: what a name meant at each row's moment."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest

from registry.database.engine import connect
from registry.definitions import Arm, Experiment
from registry.experiments import arm_of
from registry.lifecycle.audit import By
from registry.lifecycle.registry import Registry
from serving.errors import InvalidRequest
from serving.history.point_in_time import PointInTimeJoin
from serving.history.snapshot import snapshot
from tests.support.past import PORTFOLIOS, SYMBOLS, Cell, Market, asked, cells, joining
from tests.support.rebuilds import Stores
from tests.support.seeds import seeds
from tests.support.training_sets import in_json, making, run
from tickwell import Client

SMA, EXPOSURE = "price_sma_5", "portfolio_exposure"
MISSING: Cell = (None, "missing", None)
STEP_NS = 60 * 10**9

Meaning = str | Experiment | None


class Story:
    """What was done with a name in the registry, each thing at a moment that the test chooses."""

    def __init__(self, stores: Stores, start: int) -> None:
        self._stores = stores
        self.registry = Registry(connect(stores.postgres, pool_size=1), By("ann"))
        self.meanings: list[tuple[int, Meaning]] = []
        self.at = start

    def did(self, name: str, meaning: Meaning) -> None:
        """What was just recorded was so at the next moment."""
        self.at += STEP_NS
        self._stores.execute(
            "UPDATE tickwell.activations SET at = %s WHERE name = %s AND at > now() - interval"
            " '1 hour'",
            *(self._text(), name),
        )
        self._stores.execute(
            "UPDATE tickwell.audit SET at = %s WHERE subject = %s AND at > now() - interval"
            " '1 hour'",
            *(self._text(), name),
        )
        self._stores.execute(
            "UPDATE tickwell.experiments SET stopped_at = %s WHERE stopped_at > now() - interval"
            " '1 hour'",
            self._text(),
        )
        self.meanings.append((self.at, meaning))

    def _text(self) -> str:
        return str(np.datetime64(self.at, "ns").astype("datetime64[us]")) + "Z"

    def version(self, entity: str, moment: int) -> str | None:
        """By a search of all that was done."""
        found: Meaning = None
        for at, meaning in self.meanings:
            if at <= moment:
                found = meaning
        return arm_of(found, entity).version if isinstance(found, Experiment) else found


def experiment(*weights: int, name: str = "windows", by: Any = "entity") -> Experiment:
    arms = Arm("old", "1.0.0", weights[0]), Arm("new", "2.0.0", weights[1])
    return Experiment(name, SMA, arms, by)


@pytest.mark.parametrize("seed", seeds(1, 6))
def test_each_row_has_the_version_that_was_served(stores: Stores, seed: int) -> None:
    chance = random.Random(seed)
    market = Market(stores, chance, stores.catalog)
    story = Story(stores, market.at_ms * 10**6)
    registry = story.registry
    story.did(SMA, "1.0.0")
    first = story.at
    registry.create_feature_version(SMA, "2.0.0", {"expression": "mean(price, 2)"}, "1.0.0")
    market.work_by(registry.catalog())
    market.tick("price", 40)
    registry.activate(f"{SMA}@2.0.0", without_history=True)
    story.did(SMA, "2.0.0")
    registry.roll_back(SMA)
    story.did(SMA, "1.0.0")
    for weights in ((50, 50), (80, 20)):
        registry.start_experiment(experiment(*weights))
        story.did(SMA, experiment(*weights))
    registry.stop_experiment("windows", chance.choice([None, "new"]), without_history=True)
    story.did(SMA, registry.catalog().active[SMA])
    registry.start_experiment(experiment(1, 3, name="again"))
    story.did(SMA, experiment(1, 3, name="again"))
    times = [at for at, _ in story.meanings]
    questions = [
        (chance.choice(SYMBOLS), chance.choice(times) + chance.choice([-1, 0, 1, STEP_NS // 2]))
        for _ in range(200)
    ]
    rows = asked([t for _, t in questions], symbol=[entity for entity, _ in questions])
    with snapshot(stores.postgres) as seen:
        join = PointInTimeJoin.of_names(seen, [SMA, f"{SMA}@1.0.0"], as_served=True)
        columns = join.columns(rows)
        pins = {version: f"{SMA}@{version}" for version in ("1.0.0", "2.0.0")}
        pinned = PointInTimeJoin.of_pins(seen, pins).columns(rows)
        again = PointInTimeJoin.of_pins(seen, join.pins).columns(rows)
    of_version = {version: cells(column) for version, column in pinned.items()}
    expected, versions = [], []
    for number, (entity, moment) in enumerate(questions):
        version = story.version(entity, moment)
        versions.append(version)
        expected.append(MISSING if version is None else of_version[version][number])
    assert {None, "1.0.0", "2.0.0"} == set(versions)
    assert min(t for _, t in questions) < first
    served = columns[SMA].served
    assert served is not None
    found = [None if i < 0 else served.versions[i] for i in served.which.tolist()]
    assert found == versions
    assert cells(columns[SMA]) == expected
    assert cells(columns[f"{SMA}@1.0.0"]) == of_version["1.0.0"]
    assert cells(again[SMA]) == expected
    registry.engine.dispose()


def test_a_derived_version_goes_with_its_own_parts(stores: Stores) -> None:
    """A sum over a portfolio, whose second version has another price."""
    market = Market(stores, random.Random(5), stores.catalog)
    story = Story(stores, market.at_ms * 10**6)
    registry = story.registry
    story.did(EXPOSURE, "1.0.0")
    market.tick("price", 300)
    for _ in range(40):  # a reset leaves a position without a size
        market.tick("position", 2)
        with joining(stores.postgres, [EXPOSURE]) as join:
            rows = asked([story.at], portfolio=[PORTFOLIOS[0]])
            bits, _, _ = cells(join.columns(rows)[EXPOSURE])[0]
        if bits is not None and float.fromhex(bits) > 0:
            break
    summed = "sum(abs(position_size * price_sma_5))"
    registry.create_feature_version(EXPOSURE, "2.0.0", {"expression": summed}, "1.0.0")
    registry.activate(f"{EXPOSURE}@2.0.0")
    story.did(EXPOSURE, "2.0.0")
    moments = [story.at - 1, story.at, story.at - STEP_NS - 1] * 2
    portfolios = [PORTFOLIOS[0]] * 3 + [PORTFOLIOS[1]] * 3
    rows = asked(moments, portfolio=portfolios)
    with snapshot(stores.postgres) as seen:
        column = PointInTimeJoin.of_names(seen, [EXPOSURE], as_served=True).columns(rows)[EXPOSURE]
        pins = {one: f"{EXPOSURE}@{one}" for one in ("1.0.0", "2.0.0")}
        pinned = PointInTimeJoin.of_pins(seen, pins).columns(rows)
    one, two = cells(pinned["1.0.0"]), cells(pinned["2.0.0"])
    assert one[1][0] is not None
    assert one[1] != two[1]
    assert cells(column) == [one[0], two[1], MISSING, one[3], two[4], MISSING]
    registry.engine.dispose()


def test_what_an_experiment_decided_by_consumer_is_refused(stores: Stores) -> None:
    market = Market(stores, random.Random(3), stores.catalog)
    story = Story(stores, market.at_ms * 10**6)
    registry = story.registry
    story.did(SMA, "1.0.0")
    registry.create_feature_version(SMA, "2.0.0", {"expression": "mean(price, 2)"}, "1.0.0")
    market.work_by(registry.catalog())
    market.tick("price", 20)
    registry.start_experiment(experiment(1, 1, by="consumer"))
    story.did(SMA, experiment(1, 1, by="consumer"))
    before, during = asked([story.at - 1], symbol=["A"]), asked([story.at], symbol=["A"])
    with snapshot(stores.postgres) as seen:
        join = PointInTimeJoin.of_names(seen, [SMA], as_served=True)
        assert join.columns(before)[SMA].served is not None
        with pytest.raises(InvalidRequest, match=rf"row 7.*windows.*{SMA}@1.0.0 or {SMA}@2.0.0"):
            join.columns(during, first=7)
        with pytest.raises(InvalidRequest, match="as_served"):
            PointInTimeJoin.of_names(seen, [SMA])
    stores.execute("UPDATE tickwell.audit SET action = 'lost' WHERE action = 'start experiment'")
    with (
        snapshot(stores.postgres) as seen,
        pytest.raises(InvalidRequest, match="windows ran"),
    ):
        PointInTimeJoin.of_names(seen, [SMA], as_served=True)
    registry.engine.dispose()


def test_as_served_by_every_way(stores: Stores, hot_redis: str, tmp_path: Path) -> None:
    with making(stores, hot_redis) as made:
        half = sorted(made.moments)[len(made.moments) // 2]
        stores.execute(
            "UPDATE tickwell.activations SET at = to_timestamp(%s / 1000000.0)", half // 1_000
        )
        half = half // 1_000 * 1_000
        versions = ["1.0.0" if moment >= half else None for moment in made.moments]
        assert set(versions) == {"1.0.0", None}
        column = made.expected[SMA]
        cells_then = [
            cell if version else MISSING for cell, version in zip(column, versions, strict=True)
        ]
        expected = made._replace(expected={SMA: cells_then})
        body = in_json(made, features=[SMA], versions="as_served")
        found = httpx.post(f"{made.url}/features/offline", json=body, timeout=60).json()
        assert found["features"][SMA]["version"] == "as_served"
        assert found["features"][SMA]["versions"] == versions
        with Client(made.url, deadline_seconds=60) as client:
            table = client.get_offline_features([SMA], made.arrow(), "at", versions="as_served")
        expected.check(table, [SMA])
        assert table.column(f"{SMA}__version").to_pylist() == versions
        rows, out = tmp_path / "rows.parquet", tmp_path / "set.parquet"
        pq.write_table(made.arrow(), rows)
        options = "build", rows, "-f", SMA, "--time-column", "at", "--versions", "as_served"
        done = run(made, *options, "-o", out)
        assert done.returncode == 0, done.stderr
        written = pq.read_table(out)
        expected.check(written, [SMA])
        assert written.column(f"{SMA}__version").to_pylist() == versions
        assert run(made, "verify", out).returncode == 0
        stores.execute("UPDATE tickwell.activations SET at = at + interval '5 hours'")
        assert run(made, "verify", out).returncode == 1
