"""A version takes the place of the active one where it has values of all that this has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import msgspec
import pytest
from sqlalchemy import Engine

from pipelines.kafka.topics import Topic
from pipelines.stores.carried_rows import Home
from pipelines.stores.postgres.carried_rows import CarriedOfflineRows
from pipelines.stores.postgres.offline_sink import OfflineSink
from registry.database.engine import connect
from registry.definitions import Arm, Experiment
from registry.errors import NotCovered
from registry.features_file import read
from registry.formats.heartbeat import CarriedPartition, Heartbeat, PartitionLag
from registry.lifecycle.audit import By
from registry.lifecycle.recording import record
from registry.lifecycle.registry import Registry
from tests.support.followers import Follower, compute
from tests.support.logs import TOPIC_ID, runs
from tests.support.rebuilds import Stores
from tests.support.sinks import ticks

NEW = "price_sma_5@2.0.0"
HOME = Home("ticks.price", TOPIC_ID, 0)
ANEW = bytes(reversed(TOPIC_ID))


@pytest.fixture
def engine(stores: Stores) -> Iterator[Engine]:
    engine = connect(stores.postgres)
    record(engine, read(), "ann")
    yield engine
    engine.dispose()


def worker(
    stores: Stores, engine: Engine, topic_id: bytes = TOPIC_ID, partitions: int = 1
) -> Follower:
    sink = stores.keep(OfflineSink(stores.postgres))
    sink.settle(Topic("ticks.price", topic_id, partitions))
    return Follower(engine, sink)


def create(registry: Registry) -> None:
    registry.create_feature_version(
        "price_sma_5", "2.0.0", {"expression": "mean(price, 6)"}, "1.0.0"
    )


def carry_over(stores: Stores, registry: Registry, home: Home = HOME) -> None:
    rows = stores.keep(CarriedOfflineRows(stores.postgres))
    for _ in rows.carry(compute(registry.catalog(), "price"), [home]):
        pass


def two_arms(*weights: int) -> Experiment:
    arms = (Arm("a", "1.0.0", weights[0]), Arm("b", "2.0.0", weights[1]))
    return Experiment("sma", "price_sma_5", arms)


def told(registry: Registry, carried: int) -> Heartbeat:
    """What an online worker says whose entities of the partition are all in a row schema."""
    lag = (PartitionLag("ticks.price", 0, 0, 0, 0, 0.0),)
    beat = Heartbeat("online", "one", 1, 0.0, "running", 0.0, lag=lag)
    return msgspec.structs.replace(beat, carried=(CarriedPartition(TOPIC_ID.hex(), 0, carried),))


def test_holes_are_named_and_may_be_accepted_but_no_entity_is_left_behind(
    stores: Stores, engine: Engine
) -> None:
    registry = Registry(engine, By("ann"))
    work = worker(stores, engine)
    first, second = runs(ticks(["A", "B"], 30), [20])
    work.take(first, ahead=False)
    create(registry)
    assert registry.details(NEW).state == "recorded"
    with pytest.raises(NotCovered, match=r"no values of ticks\.price\[0\] offsets 0 to 19"):
        registry.activate(NEW)
    with pytest.raises(NotCovered, match=r"newest rows of entities in 1 partitions"):
        registry.activate(NEW, without_history=True)
    work.following.look()
    work.take(second, ahead=False)
    found = registry.details(NEW)
    assert (found.state, found.covered, found.stored) == ("standby", 10, 30)
    with pytest.raises(NotCovered, match=r"ticks\.price\[0\] offsets 0 to 19"):
        registry.activate(NEW)
    with pytest.raises(NotCovered, match=r"\(Postgres\).*ask again in a moment"):
        registry.activate(NEW, without_history=True)
    experiment = two_arms(1, 1)
    with pytest.raises(NotCovered, match=r"\(Postgres\)"):
        registry.start_experiment(experiment)
    carry_over(stores, registry)
    written = registry.catalog().writing["price"]
    late = Registry(engine, By("ann"), heartbeats=lambda: [told(registry, written - 1)])
    with pytest.raises(NotCovered, match=r"\(Redis\)"):
        late.activate(NEW, without_history=True)
    ready = Registry(engine, By("ann"), heartbeats=lambda: [told(registry, written)])
    with pytest.raises(NotCovered, match=r"offsets 0 to 19"):
        ready.activate(NEW)
    assert ready.activate(NEW, without_history=True).active["price_sma_5"] == "2.0.0"
    assert registry.roll_back("price_sma_5").active["price_sma_5"] == "1.0.0"
    nobody = Registry(engine, By("ann"), heartbeats=list)
    with pytest.raises(NotCovered, match=r"\(Redis\)"):
        nobody.activate(NEW, without_history=True)
    ready.start_experiment(experiment)
    with pytest.raises(NotCovered, match=r"offsets 0 to 19"):
        ready.stop_experiment("sma", "b")
    # what the name means already needs nothing, whoever is away
    nobody.start_experiment(two_arms(1, 99))
    assert ready.stop_experiment("sma", "b", without_history=True).active["price_sma_5"] == "2.0.0"


def test_a_version_of_another_source_has_nothing_of_what_the_active_one_has(
    stores: Stores, engine: Engine
) -> None:
    registry = Registry(engine, By("ann"))
    work = worker(stores, engine)
    (run,) = runs(ticks(["A", "B"], 30), [])
    work.take(run, ahead=False)
    schema = {"source": "volume", "expression": "mean(volume, 5)"}
    registry.create_feature_version("price_sma_5", "7.0.0", schema, "1.0.0")
    with pytest.raises(NotCovered, match=r"ticks\.price\[0\] offsets 0 to 29"):
        registry.activate("price_sma_5@7.0.0")
    with pytest.raises(NotCovered, match="they are of another source"):
        registry.activate("price_sma_5@7.0.0")
    registry.activate("price_sma_5@7.0.0", without_history=True)


def test_a_derived_version_has_what_its_parts_have(stores: Stores, engine: Engine) -> None:
    registry = Registry(engine, By("ann"))
    registry.create_feature_version(
        "spread", "1.0.0", {"entity": ["symbol"], "expression": "current_price - price_sma_5"}
    )
    work = worker(stores, engine)
    first, second = runs(ticks(["A", "B"], 30), [20])
    work.take(first, ahead=False)
    create(registry)
    registry.create_feature_version("spread", "2.0.0", {"parts": [NEW]}, "1.0.0")
    work.following.look()
    work.take(second, ahead=False)
    with pytest.raises(NotCovered, match=r"price_sma_5@2\.0\.0 has no values of .* 0 to 19"):
        registry.activate("spread@2.0.0")
    with pytest.raises(NotCovered, match=r"price_sma_5@2\.0\.0 .*newest rows"):
        registry.activate("spread@2.0.0", without_history=True)
    carry_over(stores, registry)
    registry.activate("spread@2.0.0", without_history=True)


@pytest.mark.parametrize("other", ["current_price - price_sma_20", "current_volume + price_sma_20"])
def test_a_part_that_the_active_version_does_not_read_has_what_it_needs(
    stores: Stores, engine: Engine, other: str
) -> None:
    """What an active version needs of the same source, or all that is stored."""
    registry = Registry(engine, By("ann"))
    spread = {"entity": ["symbol"], "expression": other}
    registry.create_feature_version("spread", "1.0.0", spread)
    work = worker(stores, engine)
    first, second = runs(ticks(["A", "B"], 30), [20])
    work.take(first, ahead=False)
    create(registry)
    registry.create_feature_version(
        "spread", "2.0.0", {"expression": "current_price - price_sma_5", "parts": [NEW]}, "1.0.0"
    )
    work.following.look()
    work.take(second, ahead=False)
    carry_over(stores, registry)
    with pytest.raises(NotCovered, match=r"price_sma_5@2\.0\.0 has no values of .* 0 to 19"):
        registry.activate("spread@2.0.0")
    registry.activate("spread@2.0.0", without_history=True)


def test_a_part_lacks_nothing_that_the_active_version_lacks_too(
    stores: Stores, engine: Engine
) -> None:
    registry = Registry(engine, By("ann"))
    work = worker(stores, engine)
    first, second = runs(ticks(["A", "B"], 30), [20])
    work.take(first, ahead=False)
    create(registry)
    difference = {"entity": ["symbol"], "expression": "current_price - price_sma_5", "parts": [NEW]}
    registry.create_feature_version("spread", "1.0.0", difference)
    with_another = {"source": "price", "expression": "mean(price, 7)"}
    registry.create_feature_version("price_sma_7", "1.0.0", with_another)
    registry.create_feature_version(
        "spread", "2.0.0", {"expression": "current_price - price_sma_7", "parts": []}, "1.0.0"
    )
    work.following.look()
    work.take(second, ahead=False)
    carry_over(stores, registry)
    registry.activate("spread@2.0.0")


def test_the_arms_of_an_experiment_may_be_derived(stores: Stores, engine: Engine) -> None:
    registry = Registry(engine, By("ann"))
    registry.create_feature_version(
        "spread", "1.0.0", {"entity": ["symbol"], "expression": "current_price - price_sma_5"}
    )
    work = worker(stores, engine)
    first, second = runs(ticks(["A", "B"], 30), [20])
    work.take(first, ahead=False)
    create(registry)
    registry.create_feature_version("spread", "2.0.0", {"parts": [NEW]}, "1.0.0")
    arms = Experiment("parts", "spread", (Arm("a", "1.0.0", 1), Arm("b", "2.0.0", 1)))
    with pytest.raises(NotCovered, match="newest rows"):
        registry.start_experiment(arms)
    work.following.look()
    work.take(second, ahead=False)
    carry_over(stores, registry)
    registry.start_experiment(arms)
    with pytest.raises(NotCovered, match=r"price_sma_5@2\.0\.0 has no values of .* 0 to 19"):
        registry.stop_experiment("parts", "b")
    assert "spread" in registry.catalog().experiments


@pytest.mark.parametrize("partition", [None, 0, 1])
def test_entities_that_were_last_seen_before_a_topic_was_made_anew_are_not_left_behind(
    stores: Stores, engine: Engine, partition: int | None
) -> None:
    """Whichever partition of the new topic has ticks by now, all of them with the version."""
    registry = Registry(engine, By("ann"))
    work = worker(stores, engine, partitions=2)
    (run,) = runs(ticks(["A", "B"], 30), [])
    work.take(run, ahead=False)
    create(registry)
    work = worker(stores, engine, ANEW, partitions=2)
    if partition is not None:
        (run,) = runs(ticks(["X", "Y"], 20, 100), [])
        work.take(replace(run, topic_id=ANEW, partition=partition), ahead=False)
    with pytest.raises(NotCovered, match=r"newest rows of entities in 1 partitions .*\(Postgres\)"):
        registry.activate(NEW, without_history=True)
    carry_over(stores, registry, Home("ticks.price", ANEW, 0))
    registry.activate(NEW, without_history=True)


def test_versions_that_were_recorded_together_cover_the_same(
    stores: Stores, engine: Engine
) -> None:
    registry = Registry(engine, By("ann"))
    create(registry)
    work = worker(stores, engine)
    (run,) = runs(ticks(["A", "B"], 30), [])
    work.take(run, ahead=False)
    assert registry.activate(NEW).active["price_sma_5"] == "2.0.0"
