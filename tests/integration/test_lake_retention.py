"""Months that Postgres let go of: the lake and Postgres together lose nothing, and states stay."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime
from pathlib import Path
from threading import Event
from typing import Any

import psycopg2
import pytest
from sqlalchemy import Engine

from pipelines.compute.entity_names import EntityNames
from pipelines.errors import LetGoMeanwhile
from pipelines.lake.retention import Dropped, Retention
from pipelines.lake.verification import LakeVerification
from pipelines.load.errors import NotLoadable
from pipelines.repair.rejected_edits import Chosen
from pipelines.repair.repair import Repair, settle_all
from pipelines.replay.backfill_sink import BackfillSink
from pipelines.replay.progress import ReplayProgress
from pipelines.stores.postgres.connection import Database
from pipelines.stores.postgres.states_from_rows import load_states
from pipelines.verify.continual import Continual, VerifiedStores
from pipelines.verify.verification import Verification, Wanted
from registry import catalog as recorded
from registry.comparisons import Place
from registry.database.engine import connect
from registry.database.month_partitions import attach, month_of
from registry.formats.origin import Origin
from registry.formats.status import Status
from registry.lifecycle.audit import By
from registry.lifecycle.coverage import coverage
from registry.lifecycle.registry import Registry
from serving.errors import InvalidRequest
from serving.history.entity_rows import EntityRows
from serving.history.explaining import Explainer
from serving.history.explanation import Explanation
from serving.history.point_in_time import PointInTimeJoin
from serving.history.snapshot import LakeReads, snapshot
from tests.support import past
from tests.support.backfills import backfill, blocks
from tests.support.lakes import (
    SILENT,
    SYMBOLS,
    Cells,
    History,
    Row,
    complete,
    exported,
    files_of,
    in_lake,
    in_postgres,
    states,
)
from tests.support.logs import NOW_MS, TOPIC_ID
from tests.support.rebuilds import TOPIC, Stores, quiet
from tests.support.seeds import seeds
from tests.support.sinks import GO_ON, query
from tickwell.verifying import described

KEPT_TICKS = 25
"""The history of the source: a few ticks more than are in the longest window."""

BEGIN = datetime.fromtimestamp(NOW_MS / 1000, UTC)
WEEK_HOURS = 7 * 24


@pytest.fixture
def engine(stores: Stores) -> Iterator[Engine]:
    """Of a database with a partition for each month."""
    engine = connect(stores.postgres)
    attach(engine, range(month_of(BEGIN) - 3, month_of(BEGIN) + 12))
    yield engine
    engine.dispose()


def keep_few_ticks(stores: Stores) -> None:
    """Of an entity, as the recorded source says; to record versions says otherwise again."""
    stores.execute(
        "UPDATE tickwell.sources SET definition = definition || %s::jsonb WHERE name = 'price'",
        f'{{"history": {KEPT_TICKS}}}',
    )


def let_go(postgres: str, lake: Path, before: date, **how: Any) -> Dropped:
    asked = Retention(postgres, lake, before, rows_a_group=7, pause_seconds=0.01, **how)
    return asked.run(quiet, GO_ON)


def month_behind(history: History, months: int = 0) -> date:
    """The first day of the month of the newest tick, or of an earlier one."""
    number = month_of(datetime.fromtimestamp(history.at_ms / 1000, UTC)) - months
    return date(number // 12, number % 12 + 1, 1)


def states_now(stores: Stores, engine: Engine) -> Any:
    """The states from which a worker would go on."""
    database = Database(stores.postgres, "test")
    ((end,),) = query(stores.postgres, "SELECT next_offset FROM tickwell.watermarks")
    source = recorded.load(engine).sources["price"]
    names = EntityNames.of([*SYMBOLS, *SILENT])
    try:
        loaded = load_states(database, source, names, KEPT_TICKS, Origin(TOPIC_ID, 0, end, 0))
    finally:
        database.close()
    columns = [column.tobytes() for column in loaded.states]
    return loaded.which.tolist(), columns


def in_redis(stores: Stores, engine: Engine) -> Any:
    """What a rebuild puts into an empty Redis."""
    stores.flush()
    source = recorded.load(engine).sources["price"]
    rebuild = stores.rebuild()
    rebuild.refill(source, TOPIC, quiet)
    return stores.rows(), stores.states([*SYMBOLS, *SILENT])


def known(cells: Cells) -> Cells:
    """Without the values that were not computed."""
    refs = [name for name, value in cells.items() if value == Status.MISSING.value]
    lost = {*refs, *(name.removesuffix("__status") for name in refs)}
    return {name: value for name, value in cells.items() if name not in lost}


class Truth:
    """All rows that were ever in Postgres."""

    def __init__(self, stores: Stores, engine: Engine) -> None:
        self._stores, self._engine = stores, engine
        self.rows: dict[Row, Cells] = {}

    def look(self) -> None:
        for row, cells in in_postgres(self._stores.postgres, complete(self._engine)).items():
            self.rows[row] = self.rows.get(row, {}) | known(cells)

    def check(self, lake: Path) -> None:
        """The files have each of them, with all that was known of it, and no others."""
        found = in_lake(lake)
        assert found.keys() == self.rows.keys()
        for row, cells in self.rows.items():
            assert found[row] | cells == found[row]


def joined(postgres: str, lake: Path, rows: EntityRows, refs: Sequence[str]) -> list[Any]:
    """A training set, from where the ticks are."""
    with snapshot(postgres, lake=LakeReads(lake)) as seen:
        join = PointInTimeJoin.of_names(seen, ["current_price", "price_sma_5", *refs])
        return [past.cells(column) for column in join.columns(rows, rows.moments).values()]


@pytest.mark.parametrize("seed", seeds(1, 30))
def test_nothing_is_lost_and_states_stay(
    stores: Stores, engine: Engine, tmp_path: Path, seed: int
) -> None:
    """Whatever stores rows, also for days that were let go of, before, between and after."""
    chance = random.Random(seed)
    history, truth = History(stores, engine, chance), Truth(stores, engine)

    def live() -> None:
        history.live(120, 2 * WEEK_HOURS)

    def load() -> None:
        with suppress(NotLoadable):  # of time that the lake alone has
            history.load()

    acts = [
        *[live] * 4,
        *(history.replay, history.carry, history.backfill, history.record_version, load),
    ]
    for _ in range(3):
        live()
    history.symbols = SYMBOLS[1:]  # the first one is silent from now on
    went = 0
    for months in (chance.randrange(2), 0):
        for _ in range(3):
            chance.choice(acts)()
        live()
        truth.look()
        exported(stores.postgres, tmp_path)
        keep_few_ticks(stores)
        before = states_now(stores, engine), in_redis(stores, engine)
        moments = chance.choices([row.event_time + 1 for row in truth.rows], k=60)
        names = [*SYMBOLS, *SILENT[:3], *{row.entity for row in truth.rows if row.schema < 0}]
        rows = past.asked(moments, symbol=chance.choices(names, k=60))
        set_before = joined(stores.postgres, tmp_path, rows, complete(engine))
        done = let_go(stores.postgres, tmp_path, month_behind(history, months))
        assert [one.reason for one in done.months if one.reason] == []
        went += sum(one.rows - one.kept for one in done.months)
        assert (states_now(stores, engine), in_redis(stores, engine)) == before
        assert joined(stores.postgres, tmp_path, rows, complete(engine)) == set_before
        truth.check(tmp_path)
        found = LakeVerification(stores.postgres, tmp_path, rows_a_group=5).run(quiet, GO_ON)
        assert (found.differences, found.changed) == ((), 0)
    assert went > 0
    live()
    history.replay()
    truth.look()
    exported(stores.postgres, tmp_path)
    truth.check(tmp_path)
    assert set(states(engine, tmp_path).values()) == {"whole"}


def explained_newest(postgres: str, now: int) -> list[Explanation]:
    """Of entities that tick, of some that are silent for long, and of one that never ticked."""
    with snapshot(postgres) as seen:
        explainer = Explainer(seen)
        return [
            explainer.explain("price_sma_5", {"symbol": symbol}, now)
            for symbol in ("A", *SILENT, "nobody")
        ]


@pytest.fixture
def history(stores: Stores, engine: Engine, tmp_path: Path) -> History:
    """Ten weeks in the lake, which are verified in each test."""
    made = History(stores, engine, random.Random(7))
    for _ in range(5):
        made.live(60, 2 * WEEK_HOURS)
    exported(stores.postgres, tmp_path)
    keep_few_ticks(stores)
    return made


def tables(postgres: str) -> set[str]:
    found = query(postgres, "SELECT tablename FROM pg_tables WHERE schemaname = 'tickwell'")
    return {name for (name,) in found if name.startswith("feature_rows")}


def indexes(postgres: str) -> set[str]:
    found = query(postgres, "SELECT indexname FROM pg_indexes WHERE schemaname = 'tickwell'")
    return {name for (name,) in found if name.startswith("feature_rows")}


def test_a_reader_is_not_waited_for_and_a_kill_leaves_the_month(
    stores: Stores, engine: Engine, tmp_path: Path, history: History
) -> None:
    """While somebody reads the months live goes on, and so does a run that is killed then."""
    rows, before = in_postgres(stores.postgres), (tables(stores.postgres), indexes(stores.postgres))
    first = month_behind(history)
    with psycopg2.connect(stores.postgres) as reader:
        reader.cursor().execute("SELECT count(*) FROM tickwell.feature_rows")
        asked = ["drop", "--before", str(first), "--lake", str(tmp_path)]
        killed = subprocess.Popen(
            [sys.executable, "-m", "tickwell", "lake", *asked],
            env={**os.environ, "TICKWELL_POSTGRES": stores.postgres},
            stderr=subprocess.DEVNULL,
        )
        while not any(name.endswith("_kept") for name in tables(stores.postgres)):
            assert killed.poll() is None
        killed.kill()
        killed.wait()
        history.live(5, 1)
        done = let_go(stores.postgres, tmp_path, first, attempts=2)
        assert [str(one.reason)[:30] for one in done.months] == ["queries read the months all th"]
    assert in_postgres(stores.postgres).items() >= rows.items()
    assert (tables(stores.postgres), indexes(stores.postgres)) == before
    done = let_go(stores.postgres, tmp_path, first)
    assert sum(one.rows - one.kept for one in done.months) > 0
    assert (tables(stores.postgres), indexes(stores.postgres)) == before
    assert let_go(stores.postgres, tmp_path, first).months == (), "there is nothing left to do"


def test_rows_that_come_before_the_swap_keep_the_month(
    stores: Stores, engine: Engine, tmp_path: Path, history: History
) -> None:
    history.record_version()
    ref = "mean_2@1.0.0"
    Registry(engine, By("ann")).begin_backfill(ref)
    backfill(engine, stores.postgres, ref, 3)  # in small blocks
    exported(stores.postgres, tmp_path)
    keep_few_ticks(stores)
    computed, came = blocks(stores.postgres, ref), list[Dropped]()

    def report(done: Dropped) -> None:
        if done.days == done.of and not came:
            came.append(done)
            history.carry()  # of silent symbols, whose newest ticks are old

    first = month_behind(history)
    asked = Retention(stores.postgres, tmp_path, first, rows_a_group=7)
    rows = len(in_postgres(stores.postgres))
    *_, last = asked.run(report, GO_ON).months
    assert "were stored meanwhile" in str(last.reason)
    assert len(in_postgres(stores.postgres)) > rows
    refused = let_go(stores.postgres, tmp_path, first).months[-1].reason
    assert "is changed" in str(refused)
    exported(stores.postgres, tmp_path)
    there = in_postgres(stores.postgres, [ref])
    assert [one.reason for one in let_go(stores.postgres, tmp_path, first).months] == [None] * 2
    assert len(in_postgres(stores.postgres)) < len(there)
    assert in_lake(tmp_path) == there
    assert computed.items() > blocks(stores.postgres, ref).items(), "the files have them"


def test_a_damaged_file_keeps_its_month_and_is_not_merged(
    stores: Stores, engine: Engine, tmp_path: Path, history: History
) -> None:
    first = month_behind(history)
    path = files_of(tmp_path)[0]
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"?")
    assert "its digest is another one" in str(
        let_go(stores.postgres, tmp_path, first).months[0].reason
    )
    path.write_bytes(whole)
    assert [one.reason for one in let_go(stores.postgres, tmp_path, first).months] == [None] * 2
    there = in_lake(tmp_path)
    path.unlink()
    stores.execute("UPDATE tickwell.day_changes SET changes = changes + 1")
    (said,) = exported(stores.postgres, tmp_path).refused
    assert "put it back from a copy" in said
    path.write_bytes(whole)
    assert exported(stores.postgres, tmp_path).refused == ()
    assert in_lake(tmp_path) == there


def test_what_others_do_of_the_time_that_is_in_the_lake_alone(
    stores: Stores, engine: Engine, tmp_path: Path, history: History
) -> None:
    """They refuse it, or say what they could not look at; none answers as if nothing had been."""
    old = min(row.event_time for row in in_postgres(stores.postgres))
    before = len(in_postgres(stores.postgres))
    shown = explained_newest(stores.postgres, history.at_ms * 10**6)
    done = let_go(stores.postgres, tmp_path, month_behind(history))
    went = [one for one in done.months if one.kept < one.rows]
    assert went
    month = datetime.combine(done.months[-1].month.following, datetime.min.time(), UTC)
    since = int(month.timestamp()) * 10**9
    catalog = recorded.load(engine)

    found = Verification(stores.postgres, catalog, Wanted(None, "seed")).run(quiet, Event())
    assert sum(tally.differences.total() for tally in found.values()) == 0
    assert found[Place.ROWS].unverifiable == 4 * sum(one.rows for one in done.months)
    assert found[Place.ROWS].values == 4 * (before - sum(one.rows for one in done.months))

    with snapshot(stores.postgres) as seen, pytest.raises(InvalidRequest, match=r"part-0\.parquet"):
        Explainer(seen).explain("price_sma_5", {"symbol": "A"}, old + 10**9)
    assert explained_newest(stores.postgres, history.at_ms * 10**6) == shown, "Postgres has these"

    with pytest.raises(NotLoadable, match="the lake alone has all rows"):
        history.load(end_ms=since // 10**6, days=1)
    history.load(end_ms=since // 10**6 + 3 * 86_400_000, days=2)

    history.live(5, 1)
    history.record_version()
    history.backfill()
    ref = complete(engine)[0]
    times = {tick.event_time for tick in blocks(stores.postgres, ref)}
    stored = {r.event_time for r in in_postgres(stores.postgres) if r.schema > 0}
    assert times == {time for time in stored if time >= since}
    expected = Verification(stores.postgres, recorded.load(engine), Wanted(None, "seed"))
    found = expected.run(quiet, Event())
    assert sum(tally.differences.total() for tally in found.values()) == 0
    assert found[Place.BLOCKS].values == len(blocks(stores.postgres, ref))
    history.late(since // 10**6 - 1)
    history.late(since // 10**6 + 1)
    repair = Repair(stores.postgres, recorded.load(engine), "price")
    repaired = repair.run(Chosen(), "ann", "", lambda _: None, Event())
    (refused,) = repaired.refused
    assert "reaches too far back" in refused
    assert repaired.made.total() == 1

    progress = ReplayProgress(stores.postgres)
    bound = progress.let_go_to(TOPIC_ID, 0)
    progress.close()
    sink, names = BackfillSink(stores.postgres, "a replay", 0), EntityNames.of(["A"])
    with pytest.raises(LetGoMeanwhile):
        sink.load(catalog.sources["price"], names, 5, Origin(TOPIC_ID, 0, bound - 1, 0))
    assert len(sink.load(catalog.sources["price"], names, 5, Origin(TOPIC_ID, 0, bound, 0)).which)
    sink.close()
    before_it = f"WHERE event_time < {since} AND schema_id > 0"
    asked = f'SELECT max("offset") + 1 FROM tickwell.feature_rows {before_it}'
    assert [(bound,)] == query(stores.postgres, asked), "the newest of each are kept"
    with engine.connect() as connection:
        known = recorded.load(engine)
        parts = {one.partition.topic: one for one in coverage(connection, known, ref)}
    of_live = parts["ticks.price"]
    assert [begin for begin, _ in of_live.backfilled] == [bound]
    assert Registry(engine, By("ann")).begin_backfill(ref).state == "complete", "nothing is left"


def test_what_is_kept_of_a_month_is_not_computed_again(
    stores: Stores, engine: Engine, tmp_path: Path
) -> None:
    """It is not verified, nor brought to a newer row schema: its windows may have gaps."""
    history = History(stores, engine, random.Random(7))
    history.symbols = SYMBOLS[:1]
    for _ in range(2):  # of each month more ticks than are kept
        history.live(90, 24)
        times = sorted(r.event_time for r in in_postgres(stores.postgres) if r.entity == SYMBOLS[0])
        history.live(9, 20 * WEEK_HOURS)
    history.late(times[-2 * KEPT_TICKS - 5] // 10**6)
    done = Repair(stores.postgres, recorded.load(engine), "price").run(
        Chosen(), "ann", "", quiet, Event()
    )
    assert done.revised > 0
    exported(stores.postgres, tmp_path)
    keep_few_ticks(stores)
    there = in_postgres(stores.postgres)
    months = let_go(stores.postgres, tmp_path, month_behind(history)).months
    assert {one.reason for one in months} == {None}
    kept = in_postgres(stores.postgres)
    revised = {row[1:] for row in kept if row.revision}
    assert 0 < len(revised) < sum(row.revision > 0 for row in there)

    verifying = Continual(VerifiedStores(stores.postgres, stores.redis_url, ""), 600, described)
    database = stores.keep(Database(stores.postgres, "test"))
    catalog, warm = recorded.load(engine), stores.redis()
    for _ in range(30):  # of each source in turn, all entities
        verifying.look(database, warm, lambda: catalog)
    compared = {(one.place, one.source): one for one in verifying.state.places}
    assert compared[Place.ROWS, "price"].differences == 0
    assert compared[Place.ROWS, "price"].values > 0

    history.record_version()
    settle_all(stores.postgres, lambda: recorded.load(engine), Event())
    added = in_postgres(stores.postgres).keys() - kept.keys()
    assert SYMBOLS[0] not in {row.entity for row in added}, "all rows of silent ones are kept"


def test_a_month_of_which_a_view_is_made_stays(
    stores: Stores, engine: Engine, tmp_path: Path, history: History
) -> None:
    first = month_behind(history)
    before = tables(stores.postgres)
    stores.execute("CREATE VIEW tickwell.mine AS SELECT * FROM tickwell.feature_rows_2023_10")
    (stays,) = let_go(stores.postgres, tmp_path, first).months
    assert "view tickwell.mine depends on table tickwell.feature_rows_2023_10" in str(stays.reason)
    assert tables(stores.postgres) == before
    stores.execute("DROP VIEW tickwell.mine")
    assert [one.reason for one in let_go(stores.postgres, tmp_path, first).months] == [None] * 2
