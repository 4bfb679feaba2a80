"""Explanations: of the tick that was served, with steps that give the stored bits."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Mapping, Sequence

import pytest

from registry.definitions import Arm, Experiment
from registry.formats.entity_name import SEPARATOR
from registry.formats.status import Status
from registry.lifecycle.registry import Registry
from serving.errors import InvalidRequest, UnknownFeature, WrongEntity
from serving.features.times import to_rfc_3339
from serving.history.explaining import Explainer
from serving.history.explanation import Explanation
from serving.history.moments import tick_of
from serving.history.point_in_time import PointInTimeJoin
from serving.history.snapshot import snapshot
from serving.history.window_ticks import TickKey
from tests.support.grown_market import grown, recorded
from tests.support.past import PORTFOLIOS, SYMBOLS, Cell, Market, asked, cells
from tests.support.rebuilds import Stores
from tests.support.seeds import seeds
from tests.support.sinks import query
from tickwell.second_opinion import add_kernel

OF_SYMBOLS = [
    *("current_price", "price_sma_5", "price_volatility"),
    *("spread", "filled", "short", "sizes"),
]
OF_PORTFOLIOS = ["portfolio_exposure", "portfolio_exposure_net"]
KINDS = {"symbol": (OF_SYMBOLS, SYMBOLS), "portfolio": (OF_PORTFOLIOS, PORTFOLIOS)}


def cell(explained: Explanation, time: int | None) -> Cell:
    bits = None if explained.value is None else explained.value.hex
    assert (time is None) == (explained.event_time is None)
    return bits, explained.status.value, time


@pytest.mark.parametrize("seed", seeds(1, 6))
def test_an_explanation_is_of_what_a_training_set_has(stores: Stores, seed: int) -> None:
    """And its steps, in plain Python, give the stored bits, as the kernel does."""
    chance = random.Random(seed)
    moments = grown(stores, chance).moments
    seen = set()
    with snapshot(stores.postgres) as at_once:
        explainer = Explainer(at_once)
        for kind, (features, entities) in KINDS.items():
            join = PointInTimeJoin.of_names(at_once, features)
            for moment in chance.sample(moments, 8):
                names = [*entities, "nobody"]
                columns = join.columns(asked([moment] * len(names), **{kind: names}))
                for name in features:
                    for entity, wanted in zip(names, cells(columns[name]), strict=True):
                        found = explainer.explain(name, {kind: entity}, moment)
                        add_kernel(at_once.catalog, found)
                        assert cell(found, wanted[2]) == wanted
                        assert found.same
                        stored = found.stored
                        if stored is not None and stored.status is not None:
                            assert len(found.proofs) == 2
                        seen.add((found.status.value, stored is not None and stored.backfill))
                        check_arithmetic(found)
    statuses = {status for status, _ in seen}
    assert statuses >= {"ok", "warming", "missing", "undefined"}
    assert any(backfill for _, backfill in seen)


def check_arithmetic(found: Explanation) -> None:
    """What is shown adds up, and the ticks are those before the value's own, in their order."""
    ticks = [(tick.event_time, tick.sequence) for tick in found.ticks]
    assert ticks == sorted(ticks)
    if found.stored is not None:
        assert ticks[-1] == (found.stored.event_time, found.stored.sequence)
        assert found.event_time in (None, found.stored.event_time)
    if found.status is Status.WARMING and found.ticks:
        ops = [tick.op for tick in found.ticks][::-1]
        filled = ops.index("reset") if "reset" in ops else len(ops)
        assert found.because.startswith(f"the window has {filled} of the ")
    if found.terms and found.value is not None:
        values = [term.value.double for term in found.terms if term.value is not None]
        assert sum(values) == pytest.approx(found.value.double, rel=1e-12)
        assert len(values) == sum(not term.closed for term in found.terms)


def test_the_ticks_are_those_of_the_log(stores: Stores) -> None:
    grown(stores, random.Random(5))
    with snapshot(stores.postgres) as at_once:
        found = Explainer(at_once).explain("price_volatility", {"symbol": "A"})
    rows = query(
        stores.postgres,
        'SELECT DISTINCT event_time, sequence, partition, "offset", index, fields[1]'
        " FROM tickwell.feature_rows AS row JOIN tickwell.row_schemas ON id = schema_id"
        " WHERE source = 'price' AND entity = 'A' ORDER BY 1, 2",
    )
    wanted = [tuple(row[2:5]) for row in rows[-21:]]
    assert [(tick.partition, tick.offset, tick.index) for tick in found.ticks] == wanted
    assert {tick.topic for tick in found.ticks} == {"ticks.price"}
    assert [tick.fields["price"].double.hex() for tick in found.ticks] == [
        float(row[5]).hex() for row in rows[-21:]
    ]
    assert found.recorded_by == "test"
    assert found.expression == "stddev(log_return(price), 20)"


@pytest.mark.parametrize("broken", ["features[2] = 7.25", "status = '\\x00020000000000'::bytea"])
def test_a_stored_value_that_is_wrong_is_seen(stores: Stores, broken: str) -> None:
    market = Market(stores, random.Random(1), stores.catalog)
    for _ in range(12):
        market.tick("price", 8)
    with snapshot(stores.postgres) as at_once:
        assert Explainer(at_once).explain("price_sma_5", {"symbol": "B"}).same
    if broken.startswith("status"):
        broken = "status = set_byte(status, 1, 1 - (get_byte(status, 1) > 0)::integer)"
    stores.execute(f"UPDATE tickwell.feature_rows SET {broken} WHERE entity = 'B'")
    with snapshot(stores.postgres) as at_once:
        found = Explainer(at_once).explain("price_sma_5", {"symbol": "B"})
        add_kernel(at_once.catalog, found)
    stored, kernel = found.proofs
    assert not found.same
    assert not stored.same
    assert kernel.same


def test_words_say_why(stores: Stores) -> None:
    registry = recorded(stores)
    market = Market(stores, random.Random(2), registry.catalog())
    market.tick("price", 10)
    market.tick("position", 12)
    registry.create_feature_version(
        "young", "1.0.0", {"expression": "mean(price, 2)", "source": "price"}
    )
    with snapshot(stores.postgres) as at_once:
        explainer = Explainer(at_once)

        def why(feature: str, **entity: str) -> str:
            return explainer.explain(feature, entity).because

        few = explainer.explain("price_volatility", {"symbol": "A"})
        count = 0
        for tick in few.ticks:
            count = count + 1 if tick.op == "trade" else 0
        assert few.because.startswith(f"the window has {count} of the 21 ticks it needs, since ")
        assert why("current_price", symbol="Z").startswith("no tick of it is stored")
        assert "`tickwell backfill young@1.0.0`" in why("young", symbol="A")
        assert "may be" in why("current_price", symbol="A")
        with pytest.raises(WrongEntity, match="portfolio"):
            explainer.explain("portfolio_exposure", {"symbol": "A"})
        with pytest.raises(UnknownFeature, match="price_sma_5"):
            explainer.explain("price_sma_6", {"symbol": "A"})


def test_a_name_that_an_experiment_decides_has_to_be_pinned(stores: Stores) -> None:
    registry = recorded(stores)
    registry.create_feature_version(
        "current_price", "2.0.0", {"expression": "mean(price, 1)"}, "1.0.0"
    )
    arms = [("control", "1.0.0", 1), ("other", "2.0.0", 1)]
    start_experiment(registry, arms)
    with snapshot(stores.postgres) as at_once:
        explainer = Explainer(at_once)
        with pytest.raises(InvalidRequest, match="trial"):
            explainer.explain("current_price", {"symbol": "A"})
        explainer.explain("current_price@1.0.0", {"symbol": "A"})


def start_experiment(registry: Registry, arms: Sequence[tuple[str, str, int]]) -> None:
    registry.start_experiment(
        Experiment("trial", "current_price", tuple(Arm(*arm) for arm in arms))
    )


def run(stores: Stores, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tickwell", "explain", *arguments],
        env={"TICKWELL_POSTGRES": stores.postgres, "PATH": "", "TICKWELL_DATA": "/nonexistent"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_the_command_proves_what_it_shows(stores: Stores) -> None:
    market = Market(stores, random.Random(3), stores.catalog)
    for _ in range(12):
        market.tick("price", 8)
        market.tick("position", 3)
    found = run(stores, "A", "price_sma_5")
    assert found.returncode == 0, found.stderr
    assert "price_sma_5@1.0.0 of A = " in found.stdout
    assert found.stdout.count("ticks.price[0]@") == 5
    assert found.stdout.count("; stored: the same") == 1
    assert found.stdout.count("; computed by the kernel: the same") == 1
    position = run(stores, "P/A", "position_size", "--json")
    explained: Mapping[str, object] = json.loads(position.stdout)
    assert explained["entity"] == {"portfolio": "P", "symbol": "A"}
    assert run(stores, "P", "portfolio_exposure").returncode == 0
    stores.execute("UPDATE tickwell.feature_rows SET features[2] = 1e9 WHERE entity = 'A'")
    broken = run(stores, "A", "price_sma_5")
    assert broken.returncode == 1
    assert "DIFFERS" in broken.stdout
    late = run(stores, "A", "price_sma_5", "--at", "2999-01-01T00:00:00Z")
    assert "--at" in late.stderr
    assert SEPARATOR not in found.stdout


def test_any_tick_can_be_explained(stores: Stores) -> None:
    """Also of a backfill, whatever came after it at the same time."""
    made = grown(stores, random.Random(6))
    rows = query(
        stores.postgres,
        "SELECT DISTINCT entity, event_time, sequence FROM tickwell.feature_rows"
        " JOIN tickwell.row_schemas ON id = schema_id WHERE source = 'price'",
    )
    backfilled = set()
    with snapshot(stores.postgres) as at_once:
        explainer = Explainer(at_once)
        for entity, time, sequence in rows:
            for name in ("filled", "price_sma_5"):
                found = explainer.explain(name, {"symbol": entity}, tick=TickKey(time, sequence))
                add_kernel(at_once.catalog, found)
                assert found.same
                assert len(found.proofs) == 2
                assert found.stored is not None
                assert (found.event_time, found.stored.sequence) == (to_rfc_3339(time), sequence)
                backfilled.add((name, found.stored.backfill is not None))
        with pytest.raises(InvalidRequest, match="no tick of A"):
            explainer.explain("filled", {"symbol": "A"}, tick=TickKey(rows[0][1], 77))
        with pytest.raises(InvalidRequest, match="derived"):
            explainer.explain("spread", {"symbol": "A"}, tick=TickKey(rows[0][1], 0))
    assert backfilled == {("filled", True), ("filled", False), ("price_sma_5", False)}
    assert made.moments


def test_a_tick_is_named_by_its_time_and_its_sequence() -> None:
    assert tick_of("--tick", "2026-11-24T14:30:00.000000007Z.3") == (1795530600 * 10**9 + 7, 3)
    assert tick_of("--tick", "2026-11-24T14:30:00Z.0") == (1795530600 * 10**9, 0)
    assert tick_of("--tick", "2026-11-24T14:30:00.5Z.12") == (1795530600 * 10**9 + 5 * 10**8, 12)
    for wrong in ("2026-11-24T14:30:00.5", "2026-11-24T14:30:00+01:00.5", "2026-13-24T14:30:00Z.1"):
        with pytest.raises(InvalidRequest, match="--tick"):
            tick_of("--tick", wrong)
