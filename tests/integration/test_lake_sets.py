"""Training sets across the lake and Postgres are one answer, whichever way it is found."""

from __future__ import annotations

import pickle
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import Engine

from registry.database.engine import connect
from registry.lifecycle.audit import By
from registry.lifecycle.registry import Registry
from serving.errors import InvalidRequest, StoresUnavailable
from serving.history.building import build
from serving.history.entity_rows import EntityRows
from serving.history.explaining import Explainer
from serving.history.explanation import Explanation
from serving.history.found_ticks import backfills_of
from serving.history.lake.day_reader import DayReader
from serving.history.lake.questions import HeldQuestions
from serving.history.lake.source_sweep import SourceSweep
from serving.history.lake.sweep import Part, Sweep, parts_of, sweep
from serving.history.named import Keeping, prove
from serving.history.point_in_time import PointInTimeJoin
from serving.history.snapshot import NO_LAKE, LakeReads, ScanLimits, snapshot
from serving.history.stopped import Stopped
from serving.history.verification import verify
from serving.history.wanted import Wanted
from tests.support.backfills import backfill
from tests.support.carried import carry
from tests.support.lakes import files_of
from tests.support.past import ALWAYS, SYMBOLS, Cell, Market, asked, cells
from tests.support.rebuilds import Stores
from tests.support.seeds import seeds
from tests.support.split_history import Searched, SplitHistory

FEATURES = ["current_price", "price_sma_5@2.0.0", "price_sma_5@3.0.0", "price_volatility"]
NEVER = ScanLimits(fewest_questions=2**62)
HOUR_MS = 3_600_000


@pytest.fixture
def engine(stores: Stores) -> Iterator[Engine]:
    engine = connect(stores.postgres)
    yield engine
    engine.dispose()


class Questions(NamedTuple):
    """Rows of entities, with the moments by which ticks had to be known."""

    rows: EntityRows
    known: Any
    repaired: bool

    @property
    def each(self) -> list[tuple[str, int, int]]:
        names = self.rows.keys["symbol"].to_pylist()
        return list(zip(names, self.rows.moments.tolist(), self.known.tolist(), strict=True))


def lived(stores: Stores, engine: Engine, chance: random.Random) -> None:
    """Days of ticks in three row schemas, perhaps with a backfill."""
    registry = Registry(engine, By("ann"))
    market = Market(stores, chance, registry.catalog())

    def go_on(steps: int) -> None:
        for _ in range(steps):
            market.tick("price", chance.randrange(1, 9))
            market.at_ms += round(chance.choice([0, 0.01, 3, 15, 40]) * HOUR_MS)

    go_on(5)
    for version, expression in (("2.0.0", "mean(price, 3)"), ("3.0.0", "mean(price, 2)")):
        before = f"{int(version[0]) - 1}.0.0"
        registry.create_feature_version(
            "price_sma_5", version, {"expression": expression}, before if before < "2" else "1.0.0"
        )
        carry(stores, "offline", registry.catalog(), 0)  # the newest ticks are in two row schemas
        market.work_by(registry.catalog())
        go_on(4)
    registry.create_feature_version(
        "spread_of_means",
        "1.0.0",
        {"expression": "current_price / price_sma_5 - 1", "entity": ["symbol"]},
    )
    if chance.random() < 0.7 and registry.begin_backfill("price_sma_5@2.0.0") is not None:
        assert backfill(engine, stores.postgres, "price_sma_5@2.0.0").finished


def questions(
    chance: random.Random, rows: Sequence[tuple[Any, ...]], n: int, how: str
) -> Questions:
    times = [int(row[2]) for row in rows] + [int(row[6]) for row in rows]
    moments = [chance.choice(times) + chance.choice([-1, 0, 0, 1, 10**14]) for _ in range(n)]
    moments += [*chance.choices(moments, k=n // 5), 1]
    found = asked(moments, symbol=[chance.choice([*SYMBOLS, "nobody"]) for _ in moments])
    known = found.moments
    if how != "moment":
        known = np.full_like(known, chance.choice([max(times) + 1, chance.choice(times)]))
    return Questions(found, known, how == "repaired")


def joined(
    stores: Stores, wanted: Questions, lake: LakeReads, scans: ScanLimits, pieces: int = 0
) -> tuple[dict[str, list[Cell]], str]:
    """The cells of each feature, and how they were read; swept in so many pieces, if in any."""
    rows, known = wanted.rows, wanted.known
    with snapshot(stores.postgres, scans=scans, lake=lake) as seen:
        join = PointInTimeJoin.of_names(seen, FEATURES)
        if not pieces:
            columns = join.columns(rows, known, 0, wanted.repaired)
            return {name: cells(column) for name, column in columns.items()}, join.plans["price"]
        one = int(known[0])
        is_one = bool((known == one).all())
        cuts = np.array_split(np.arange(len(rows)), pieces)
        parts = [_some(rows, which) for which in cuts]
        found: dict[str, list[Cell]] = {name: [] for name in FEATURES}
        with join.set_sweep(
            lambda at: np.full_like(at, one) if is_one else at, wanted.repaired, None
        ) as swept:
            swept.run(parts)
            for part, which in zip(parts, cuts, strict=True):
                columns = join.columns(part, known[which], int(which[0]), wanted.repaired)
                for name, column in columns.items():
                    found[name] += cells(column)
        return found, join.plans["price"]


def _some(rows: EntityRows, which: Any) -> EntityRows:
    return EntityRows({"symbol": rows.keys["symbol"].take(which)}, rows.moments[which])


@pytest.mark.parametrize("seed", seeds(1, 60))
def test_all_ways_give_what_a_search_of_all_rows_finds(
    stores: Stores, engine: Engine, tmp_path: Path, seed: int
) -> None:
    """Late ticks, ties, repairs, loads, row schemas; days in the lake, in Postgres, in both."""
    chance = random.Random(seed)
    lived(stores, engine, chance)
    history = SplitHistory(stores, tmp_path, chance)
    history.edit()
    catalog = Registry(engine, By("ann")).catalog()
    before = Searched(stores.postgres, catalog, [])
    history.split()
    search = Searched(stores.postgres, catalog, history.rows)
    search.blocks = before.blocks
    for how in ("moment", "then", "repaired"):
        wanted = questions(chance, history.rows, 120, how)
        expected = {
            name: [search.cell(_ref(catalog, name), *one, wanted.repaired) for one in wanted.each]
            for name in FEATURES
        }
        lake = LakeReads(tmp_path, 0, 1e9, rows_at_once=chance.choice([1, 30, 10**6]))
        ways = [joined(stores, wanted, lake, scans) for scans in (NEVER, ALWAYS)]
        ways.append(joined(stores, wanted, lake, NEVER, chance.randrange(1, 5)))
        assert ways[2][1] == "sweep"
        for found, _ in ways:
            assert found == expected


def _ref(catalog: Any, name: str) -> str:
    return name if "@" in name else f"{name}@{catalog.active[name]}"


@pytest.fixture
def exported_history(stores: Stores, engine: Engine, tmp_path: Path) -> SplitHistory:
    """Days that are all in the lake, and in Postgres as well."""
    chance = random.Random(5)
    lived(stores, engine, chance)
    history = SplitHistory(stores, tmp_path, chance)
    history.export()
    return history


def test_parts_go_to_other_processes_and_have_the_bits_of_one(
    stores: Stores, exported_history: SplitHistory, tmp_path: Path
) -> None:
    """What they need is sent as bytes, and nothing of it is a connection."""
    wanted = questions(random.Random(5), exported_history.rows, 200, "moment")
    names, entity = wanted.rows.entities(("symbol",))
    refs = ["current_price@1.0.0", "price_sma_5@2.0.0"]
    with snapshot(stores.postgres, lake=LakeReads(tmp_path)) as seen:
        of = SourceSweep(seen, "price", refs, backfills_of(seen), False)
        whole = HeldQuestions(entity, wanted.rows.moments, wanted.known, len(refs))
        of.run(names, whole, parts_of(whole.days(), 1_000))
        days, known = of.days, of.known(names)
    assert all(not day.in_postgres for day in days)
    found = HeldQuestions(entity, wanted.rows.moments, wanted.known, len(refs))
    parts = [Part(day, day) for day in found.days()]
    assert len(parts) > 2
    for part in parts:
        sent = pickle.dumps((of.reading, names, Sweep(days, known, len(refs)), part, found))
        reading, names_there, sweep_there, part_there, asked_there = pickle.loads(sent)
        reader = DayReader(reading, names_there, _nothing)
        sweep(sweep_there, part_there, reader, asked_there)
        for day in range(part.first, part.last + 1):
            for segment in asked_there.segments(day):
                found.answer(segment, asked_there.answered(segment))
    for column, other in zip(found.answers.columns, whole.answers.columns, strict=True):
        assert column.tobytes() == other.tobytes()


def _nothing(statement: str, parameters: Mapping[str, Any]) -> memoryview:
    raise AssertionError("Postgres was asked")


def test_a_dropped_day_needs_its_files(
    stores: Stores, exported_history: SplitHistory, tmp_path: Path
) -> None:
    """Ten rows of it are found in them; else the error names the file, or the setting."""
    history = exported_history
    wanted = questions(random.Random(5), history.rows, 10, "moment")
    before = joined(stores, wanted, LakeReads(tmp_path), NEVER)
    assert before[1] == "lateral"
    history.drop_all()
    assert joined(stores, wanted, LakeReads(tmp_path), NEVER) == (before[0], "sweep")
    with pytest.raises(StoresUnavailable, match="TICKWELL_LAKE"):
        joined(stores, wanted, LakeReads(), NEVER)
    paths = files_of(tmp_path)
    contents = [path.read_bytes() for path in paths]
    for path, other in zip(paths, contents[1:] + contents[:1], strict=True):
        path.write_bytes(other)  # a whole file, and not the one of the manifest
    with pytest.raises(StoresUnavailable, match=r"part-0\.parquet has the ticks of price on 20"):
        joined(stores, wanted, LakeReads(tmp_path), NEVER)


def test_what_is_derived_is_explained_by_files(
    stores: Stores, exported_history: SplitHistory, tmp_path: Path
) -> None:
    """As it was before Postgres let go; a window is not, and without a lake the file is named."""
    lake, feature = LakeReads(tmp_path), "spread_of_means"
    moments = [row[2] for row in random.Random(5).choices(exported_history.rows, k=4)]

    def explained(lake: LakeReads) -> list[Explanation]:
        with snapshot(stores.postgres, lake=lake) as seen:
            explainer = Explainer(seen)
            return [
                explainer.explain(feature, {"symbol": name}, moment)
                for name in (*SYMBOLS, "nobody")
                for moment in moments
            ]

    before = explained(NO_LAKE)
    assert sum(one.value is not None for one in before) > 3
    exported_history.drop_all()
    assert explained(lake) == before
    for where, name in ((NO_LAKE, feature), (lake, "price_sma_5")):
        with snapshot(stores.postgres, lake=where) as seen:
            explainer = Explainer(seen)
            with pytest.raises(InvalidRequest, match=r"see rows.*part-\d\.parquet in the lake"):
                explainer.explain(name, {"symbol": "A"}, moments[0])
            assert explainer.explain(feature, {"symbol": "nobody"}).status == "missing"


def test_a_set_is_swept_where_rows_are_many(
    stores: Stores, exported_history: SplitHistory, tmp_path: Path
) -> None:
    """And looked up where the files have too much that is not asked for."""
    wanted = questions(random.Random(5), exported_history.rows, 50, "moment")
    plans = {}
    for rows_a_question in (100.0, 0.001):
        lake = LakeReads(tmp_path, 10, rows_a_question)
        plans[rows_a_question] = joined(stores, wanted, lake, NEVER, 2)
    assert plans[100.0] == (plans[0.001][0], "sweep")
    assert plans[0.001][1] == "lateral"
    assert joined(stores, wanted, LakeReads(tmp_path, 1_000), NEVER, 2)[1] == "lateral"


def test_files_are_built_and_proved_with_a_sweep(
    stores: Stores, exported_history: SplitHistory, tmp_path: Path
) -> None:
    """The same file as without a lake; what is done only grows; a set is proved by its name."""
    wanted = questions(random.Random(5), exported_history.rows, 60, "moment")
    stamps = pa.array(wanted.rows.moments).cast(pa.timestamp("ns", "UTC"))
    entities = tmp_path / "entities.parquet"
    pq.write_table(pa.table({"symbol": wanted.rows.keys["symbol"], "timestamp": stamps}), entities)
    asked_for = Wanted([*FEATURES, "spread_of_means"], event_times=True, allow_open=True)
    swept = LakeReads(tmp_path, 0, 1e9)
    tables, told = [], list[int]()
    for lake in (LakeReads(), swept):
        told.clear()
        out, keeping = tmp_path / "set.parquet", None
        if lake is swept:
            keeping = Keeping("momentum", By("ann"))
        report = build(
            *((stores.postgres, lake), (entities, out), asked_for),
            *(lambda done, _: told.append(done), Event(), keeping),
        )
        assert report.plans["price"] == ("sweep" if lake is swept else "lateral")
        assert told == sorted(told)
        assert told[-1] == len(wanted.rows)
        tables.append(pq.read_table(out).drop_columns(["symbol", "timestamp"]))
    assert len(told) > 3
    assert tables[0].equals(tables[1])
    with_lake = stores.postgres, swept
    assert verify(with_lake, out, lambda *_: None, Event()).is_same
    assert prove(with_lake, "momentum", lambda *_: None, Event()).is_same
    stop = Event()
    stop.set()
    with pytest.raises(Stopped):
        build(with_lake, (entities, out), asked_for, lambda *_: None, stop)
