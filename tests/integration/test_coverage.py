"""What a version has values of, as the offline store records it and as it can be found out."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import Engine, text

from pipelines.kafka.run import Run
from pipelines.kafka.topics import Topic
from pipelines.stores.carried_rows import Home
from pipelines.stores.postgres.carried_rows import CarriedOfflineRows
from pipelines.stores.postgres.offline_sink import OfflineSink
from registry import catalog as recorded
from registry.database import migrations
from registry.database.engine import connect
from registry.definitions import Catalog, FeatureVersion
from registry.errors import UnknownVersion
from registry.features_file import read
from registry.formats.heartbeat import CarriedPartition, Heartbeat, PartitionLag
from registry.lifecycle.coverage import (
    Ranges,
    TopicPartition,
    behind,
    coverage,
    holes,
    is_recorded_only,
)
from registry.lifecycle.recording import record
from tests.support.followers import Follower, compute, with_means
from tests.support.logs import TOPIC_ID, runs
from tests.support.rebuilds import Stores
from tests.support.seeds import seeds
from tests.support.sinks import ticks

SYMBOLS = {0: ["A", "B"], 1: ["X", "Y"]}
"""The entities of each partition."""

ANEW = bytes(reversed(TOPIC_ID))
TOPICS = {topic_id: Topic("ticks.price", topic_id, 2) for topic_id in (TOPIC_ID, ANEW)}

(MIGRATION,) = Path(str(files(migrations))).glob("versions/*_schema_starts.sql")

At = tuple[bytes, int]
"""A partition of an incarnation."""


@pytest.fixture
def engine(stores: Stores) -> Iterator[Engine]:
    engine = connect(stores.postgres)
    yield engine
    engine.dispose()


def offline(stores: Stores, engine: Engine, topic_id: bytes = TOPIC_ID) -> Follower:
    sink = stores.keep(OfflineSink(stores.postgres))
    sink.settle(TOPICS[topic_id])
    return Follower(engine, sink)


def log_of(partition: int, topic_id: bytes, chance: random.Random, rejected: float) -> list[Run]:
    """Runs, some of which have no tick that is accepted."""
    first = 0 if topic_id == TOPIC_ID else 1_000  # no tick is too late for the ones before
    records = ticks(SYMBOLS[partition], 90, first)
    cuts = sorted(chance.sample(range(1, len(records)), 14))
    begins, refused = [0, *cuts], set[int]()
    for begin, end in zip(begins, [*cuts, len(records)], strict=True):
        if chance.random() < rejected:
            refused.update(range(begin, end))
    log = [
        replace(record, offset=number, value=b"{}" if number in refused else record.value)
        for number, record in enumerate(records)
    ]
    return [replace(run, partition=partition, topic_id=topic_id) for run in runs(log, cuts)]


def with_another_version(engine: Engine) -> Catalog:
    """What is recorded once there are two versions of a feature."""
    with_means(engine, 2)
    definitions = read()
    other = FeatureVersion(
        "mean_2", "2.0.0", ("symbol",), "mean(price, 3)", source="price", description="Longer."
    )
    more = msgspec.structs.replace(definitions, features=(*definitions.features, other))
    return record(engine, more, "test")


def in_any_order(engine: Engine, features: Sequence[str]) -> None:
    """Have rows hold these: a later step may take a version out of the rows again."""
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO tickwell.row_schemas (source, features) VALUES ('price', :features)"),
            {"features": list(features)},
        )
        connection.execute(text("UPDATE tickwell.serial SET number = number + 1"))


def offsets(ranges: Iterable[tuple[int, int]]) -> set[int]:
    return {offset for begin, end in ranges for offset in range(begin, end)}


def at(partition: TopicPartition) -> At:
    return partition.topic_id, partition.partition


def is_in_order(ranges: Ranges) -> bool:
    """Whether they neither overlap nor meet, and none is empty."""
    bounds = [bound for one in ranges for bound in one]
    return bounds == sorted(set(bounds))


def assert_covered(
    engine: Engine, catalog: Catalog, stored: Mapping[At, Mapping[int, int]], current: bytes
) -> None:
    """Hold what is said of every version against the row schema in which each offset is stored."""

    def expected(ref: str) -> dict[At, set[int]]:
        return {
            where: {o for o, schema in each.items() if ref in catalog.schemas[schema].features}
            for where, each in stored.items()
        }

    refs = [ref for ref, feature in catalog.features.items() if feature.source == "price"]
    with engine.connect() as connection:
        for ref in refs:
            found = coverage(connection, catalog, ref)
            assert all(is_in_order(part.live) for part in found)
            assert {at(part.partition): offsets(part.covered) for part in found} == expected(ref)
            assert {at(part.partition): offsets([part.stored]) for part in found} == {
                where: set(each) for where, each in stored.items()
            }
            assert {part.partition.topic_id for part in found if part.is_current} <= {current}
            assert is_recorded_only(connection, catalog, ref) == (not any(expected(ref).values()))
        for name, active in catalog.active.items():
            for ref in refs:
                if not ref.startswith(f"{name}@"):
                    continue
                lacking = holes(connection, catalog, name, ref.split("@")[1])
                assert all(is_in_order(one.ranges) for one in lacking)
                has, wants = expected(ref), expected(f"{name}@{active}")
                assert {at(one.partition): offsets(one.ranges) for one in lacking} == {
                    where: wants[where] - has[where]
                    for where in stored
                    if where[0] == current and wants[where] - has[where]
                }


@pytest.mark.parametrize("seed", seeds(1, 8))
def test_it_is_the_row_schema_of_each_offset(stores: Stores, engine: Engine, seed: int) -> None:
    """Two workers, runs of rejected ticks, versions that come and go, a topic that is made anew."""
    chance = random.Random(seed)
    catalog = with_another_version(engine)
    versions = list(catalog.schemas[catalog.writing["price"]].features)
    stored: dict[At, dict[int, int]] = {}
    for topic_id in (TOPIC_ID, ANEW):
        workers = [offline(stores, engine, topic_id) for _ in range(2)]
        left = {part: log_of(part, topic_id, chance, 0.2) for part in SYMBOLS}
        while any(left.values()) and not (topic_id == TOPIC_ID and chance.random() < 0.03):
            match chance.randrange(5):
                case 0:
                    in_any_order(engine, chance.sample(versions, chance.randint(1, 6)))
                case 1:
                    chance.choice(workers).following.look()
                case _:
                    partition = chance.choice([part for part, log in left.items() if log])
                    run = left[partition].pop(0)
                    for one in workers:
                        one.work.forget()
                    batch = chance.choice(workers).take(run, ahead=chance.random() < 0.5)
                    assert batch is not None
                    of_partition = stored.setdefault((topic_id, partition), {})
                    for offset in range(run.base_offset, run.next_offset):
                        of_partition[offset] = batch.schema.id
        assert_covered(engine, recorded.load(engine), stored, topic_id)


def test_nothing_is_said_of_a_partition_that_was_never_stored(
    stores: Stores, engine: Engine
) -> None:
    offline(stores, engine)
    with engine.connect() as connection:
        assert coverage(connection, stores.catalog, "current_price@1.0.0") == []
        assert holes(connection, stores.catalog, "current_price", "1.0.0") == []
        assert is_recorded_only(connection, stores.catalog, "current_price@1.0.0")


def test_a_topic_that_was_made_anew_has_no_holes_before_its_first_run(
    stores: Stores, engine: Engine
) -> None:
    (first,) = runs(ticks(["A"], 20), ())
    offline(stores, engine).take(first, ahead=False)
    catalog = with_means(engine, 7)
    stores.execute("UPDATE tickwell.active_versions SET version = '1.0.0'")
    offline(stores, engine, ANEW)
    with engine.connect() as connection:
        (part,) = coverage(connection, catalog, "current_price@1.0.0")
        assert (part.is_current, part.covered) == (False, ((0, 20),))
        assert holes(connection, catalog, "mean_7", "1.0.0") == []


def test_the_start_is_that_of_a_run_of_which_every_tick_was_rejected(
    stores: Stores, engine: Engine
) -> None:
    records = [*ticks(["A"], 20), *(replace(r, value=b"{}") for r in ticks(["A"], 10, 20))]
    first, second = runs(records, (20,))
    follower = offline(stores, engine)
    follower.take(first, ahead=False)
    catalog = with_means(engine, 7)
    with engine.connect() as connection:
        assert is_recorded_only(connection, catalog, "mean_7@1.0.0")
    follower.following.look()
    follower.take(second, ahead=False)
    with engine.connect() as connection:
        assert not is_recorded_only(connection, catalog, "mean_7@1.0.0")
        (part,) = coverage(connection, catalog, "mean_7@1.0.0")
    assert (part.stored, part.covered) == ((0, 30), ((20, 30),))


def test_a_version_that_is_derived_or_unknown(stores: Stores, engine: Engine) -> None:
    with engine.connect() as connection:
        assert coverage(connection, stores.catalog, "portfolio_exposure@1.0.0") == []
        assert holes(connection, stores.catalog, "portfolio_exposure", "1.0.0") == []
        assert not is_recorded_only(connection, stores.catalog, "portfolio_exposure@1.0.0")
        with pytest.raises(UnknownVersion, match=r"there is no current_price"):
            coverage(connection, stores.catalog, "current_price")
        with pytest.raises(UnknownVersion, match=r"current_price@9"):
            holes(connection, stores.catalog, "current_price", "9")


# -- what was stored before anything was recorded of it


def starts(engine: Engine) -> list[tuple[int, bytes, int, int]]:
    with engine.connect() as connection:
        rows = connection.execute(
            text(
                "SELECT schema_id, topic_id, partition, from_offset FROM tickwell.schema_starts"
                " ORDER BY topic_id, partition, schema_id"
            )
        )
        return [(row[0], row[1].bytes, row[2], row[3]) for row in rows]


def found_out(engine: Engine) -> list[tuple[int, bytes, int, int]]:
    """What the migration finds of what is stored."""
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE tickwell.schema_starts"))
        connection.execute(text("DROP FUNCTION tickwell.begin_schema"))
        connection.exec_driver_sql(MIGRATION.read_text("utf-8"))
    return starts(engine)


@pytest.mark.parametrize("seed", seeds(1, 4))
def test_the_migration_finds_what_was_recorded(stores: Stores, engine: Engine, seed: int) -> None:
    chance = random.Random(seed)
    follower, windows = offline(stores, engine), [1]
    left = {part: log_of(part, TOPIC_ID, chance, 0) for part in SYMBOLS}
    while any(left.values()):
        if chance.random() < 0.15:
            windows.append(windows[-1] + 1)
            with_means(engine, *windows[1:])
            follower.following.look()
        follower.take(left[chance.choice([p for p, log in left.items() if log])].pop(0), False)
    recorded_starts = starts(engine)
    assert found_out(engine) == recorded_starts


def test_the_migration_takes_no_replayed_row_for_the_start(stores: Stores, engine: Engine) -> None:
    """A replay has stored old ticks of one entity again, in the newest row schema."""
    first, second = runs(ticks(["A", "B"], 60), (40,))
    follower = offline(stores, engine)
    follower.take(first, ahead=False)
    newest = with_means(engine, 7).writing["price"]
    follower.following.look()
    follower.take(second, ahead=False)
    columns = (
        "entity, event_time, sequence, revision, tick_time, seq, op, fields, features, status,"
        ' known_at, topic_id, partition, "offset", index, seq_text'
    )
    stores.execute(
        f"INSERT INTO tickwell.feature_rows (schema_id, {columns}) SELECT %s, {columns}"
        " FROM tickwell.feature_rows WHERE entity = 'A' AND \"offset\" < 40",
        newest,
    )
    assert found_out(engine) == [(1, TOPIC_ID, 0, 0), (newest, TOPIC_ID, 0, 40)]


# -- entities that do not tick


def test_what_is_behind_is_what_no_store_has_noted(stores: Stores, engine: Engine) -> None:
    offline(stores, engine)
    catalog = with_means(engine, 7)
    later = with_means(engine, 7, 8)
    rows = stores.keep(CarriedOfflineRows(stores.postgres))

    def found(of: Catalog, ref: str, *beats: Heartbeat) -> list[tuple[bool, bool | None]]:
        with engine.connect() as connection:
            return [part[1:] for part in behind(connection, of, ref, beats)]

    def beat(sink: str, schema_id: int, *partitions: int) -> Heartbeat:
        lag = [PartitionLag("ticks.price", number, 0, 0, 0, 0.0) for number in (0, 1)]
        carried = [CarriedPartition(TOPIC_ID.hex(), number, schema_id) for number in partitions]
        beat = Heartbeat(sink, "one", 1, 0.0, "running", 0.0, lag=tuple(lag))
        return msgspec.structs.replace(beat, carried=tuple(carried))

    assert found(later, "current_price@1.0.0") == [(False, False), (False, False)]
    assert found(later, "mean_7@1.0.0") == [(True, None), (True, None)]
    for _ in rows.carry(compute(catalog, "price"), [Home("ticks.price", TOPIC_ID, 1)]):
        pass
    assert found(later, "mean_7@1.0.0") == [(True, None), (False, None)]
    assert found(later, "mean_8@1.0.0") == [(True, None), (True, None)]
    beats = beat("online", later.writing["price"], 0), beat("offline", later.writing["price"], 0, 1)
    assert found(later, "mean_8@1.0.0", *beats) == [(True, False), (True, True)]
    in_any_order(engine, ["current_price@1.0.0"])
    without_it = recorded.load(engine)
    assert found(without_it, "mean_7@1.0.0") == [(True, None), (True, None)]
    assert found(without_it, "portfolio_exposure@1.0.0") == []
