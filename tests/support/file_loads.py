"""What tests of loads share: files into history without the command, and what is stored of them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

from pipelines.load.loads import Loads, RecordedLoad, alone
from pipelines.load.planning import LoadOptions, Plan, Planner
from pipelines.load.spill import KnownAt
from pipelines.produce.options import FileOptions
from pipelines.replay.jobs import run_in_jobs, run_ranges
from pipelines.replay.replay import Done, Report
from registry import catalog as recorded
from registry.database.engine import connect
from registry.definitions import Catalog
from tests.support.sinks import query

GO_ON = Event()
DELAY_NS = 250 * 10**6


class Asked(NamedTuple):
    """How files are loaded; runs of a few ticks, so that there are many."""

    source: str = "price"
    known_at: str | None = None
    run_ticks: int = 50
    jobs: int = 1
    dry_run: bool = False


def catalog_at(postgres: str) -> Catalog:
    engine = connect(postgres)
    try:
        return recorded.load(engine)
    finally:
        engine.dispose()


def load_files(
    postgres: str,
    files: Sequence[Path],
    asked: Asked = Asked(),  # noqa: B008
    report: Report = lambda done: None,
    stop: Event = GO_ON,
    **options: Any,
) -> Done:
    """Load files as the command does; `options` are those of `FileOptions`."""
    with Loads.at(postgres) as loads, tempfile.TemporaryDirectory() as directory:
        planner = planner_of(postgres, loads, files, asked, **options)
        known = planner.recorded()
        if known is not None and known.finished_at is not None:
            return Done()
        with alone(postgres, asked.source):
            plan = planner.plan(Path(directory), lambda part, rows: None, GO_ON, asked.dry_run)
            done = run(plan, asked.jobs, report, stop)
        if not stop.is_set() and not asked.dry_run:
            loads.finish(planner.load_id)
        return done


def planner_of(
    postgres: str, loads: Loads, files: Sequence[Path], asked: Asked, **options: Any
) -> Planner:
    catalog = catalog_at(postgres)
    delay = None if asked.known_at is not None else DELAY_NS
    how = LoadOptions(
        FileOptions(
            **options, known_at=asked.known_at, names_entities=True, keep_rows=True
        ),
        KnownAt(delay),
        "test",
        run_ticks=asked.run_ticks,
    )
    return Planner(postgres, loads, catalog, catalog.sources[asked.source], files, how)


def run(plan: Plan, jobs: int, report: Report, stop: Event) -> Done:
    left = [part for part in plan.parts if part.offsets]
    if jobs > 1:
        return run_in_jobs(plan.load, left, jobs, report, stop)
    return run_ranges(plan.load, left, report, stop)


def loads_at(postgres: str) -> list[RecordedLoad]:
    with Loads.at(postgres) as loads:
        return loads.all()


LOADED = (
    "SELECT -schema_id, entity, event_time, sequence, tick_time, seq, op, fields,"
    " array_send(features)::text, status::text, known_at, topic_id::text, partition,"
    ' "offset", index FROM tickwell.feature_rows'
)


def loaded_rows(postgres: str) -> list[tuple[Any, ...]]:
    """All loaded rows, with the bits of their values."""
    return query(postgres, f"{LOADED} WHERE schema_id < 0 ORDER BY entity, event_time, sequence")


def live_rows(postgres: str) -> list[tuple[Any, ...]]:
    """All rows of live."""
    return query(postgres, f"{LOADED} WHERE schema_id > 0 ORDER BY 1, 2, 3, 4")


def csv_lines(ticks: Iterable[tuple[Any, ...]]) -> list[str]:
    """Lines of a CSV: symbol, price, ts in milliseconds, seq."""
    return ["symbol,price,ts,seq", *(",".join(map(_cell, tick)) for tick in ticks)]


def _cell(value: Any) -> str:
    return "" if value is None else str(value)
