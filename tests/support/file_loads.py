"""What tests of loads share: files into history without the command, and what is stored of them."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

import psycopg2
import pyarrow as pa

from pipelines.kafka.run import Run
from pipelines.load.loads import Loads, RecordedLoad, alone
from pipelines.load.planning import LoadOptions, Plan, Planner
from pipelines.load.spill import KnownAt
from pipelines.produce.options import FileOptions
from pipelines.replay.jobs import run_in_jobs, run_ranges
from pipelines.replay.replay import Done, Report
from registry import catalog as recorded
from registry.database.engine import connect
from registry.definitions import Catalog
from tests.oracle.messages import Record
from tests.support.logs import runs
from tests.support.sinks import query
from tests.support.tick_files import TS, csv_of, parquet_of

GO_ON = Event()
DELAY_NS = 250 * 10**6


class Asked(NamedTuple):
    """How files are loaded; runs of a few ticks, so that there are many."""

    source: str = "price"
    known_at: str | None = None
    run_ticks: int = 50
    jobs: int = 1
    dry_run: bool = False


EVERYTHING = Asked()


def catalog_at(postgres: str) -> Catalog:
    engine = connect(postgres)
    try:
        return recorded.load(engine)
    finally:
        engine.dispose()


def load_files(
    postgres: str,
    files: Sequence[Path],
    asked: Asked = EVERYTHING,
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
        FileOptions(**options, known_at=asked.known_at, names_entities=True, keep_rows=True),
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
    "SELECT -schema_id, entity, event_time, sequence, tick_time, seq, op,"
    " array_send(fields)::text, array_send(features)::text, status::text, known_at,"
    ' topic_id::text, partition, "offset", index FROM tickwell.feature_rows'
)


def loaded_rows(postgres: str) -> list[tuple[Any, ...]]:
    """All loaded rows, with the bits of their values."""
    return query(postgres, f"{LOADED} WHERE schema_id < 0 ORDER BY entity, event_time, sequence")


def live_rows(postgres: str) -> list[tuple[Any, ...]]:
    """All rows of live."""
    return query(postgres, f"{LOADED} WHERE schema_id > 0 ORDER BY 1, 2, 3, 4")


Tick = tuple[str, float, int, int | None]


def ticks(n: int, seed: int = 1, symbols: str = "ABCDEFGH", first: int = TS) -> list[Tick]:
    """Ticks in any order of time; some at one time, some doubled."""
    chance = random.Random(seed)
    made: list[Tick] = []
    for number in range(n):
        seq = chance.choice([None, None, chance.randrange(4)])
        ts = first + 1000 * (number // 9) + chance.choice([0, 0, 250])
        made.append((chance.choice(symbols), chance.uniform(1, 2), ts, seq))
    chance.shuffle(made)
    return made


def as_csv(directory: Path, made: list[Tick], name: str = "t.csv") -> Path:
    lines = [",".join("" if cell is None else str(cell) for cell in tick) for tick in made]
    return csv_of(directory, "symbol,price,ts,seq", *lines, name=name)


def as_parquet(directory: Path, made: list[Tick]) -> Path:
    symbol, price, ts, seq = zip(*made, strict=True)
    stamps = pa.array(list(ts), pa.timestamp("ms", "UTC"))
    return parquet_of(directory, symbol=list(symbol), price=list(price), ts=stamps, seq=list(seq))


def in_order(made: list[Tick]) -> list[Tick]:
    """By entity, time, sequence number (none comes first), and input."""
    return sorted(made, key=lambda t: (t[0], t[2], -(2**63) if t[3] is None else t[3]))


def records_of(made: list[Tick], delay_ms: int = 250) -> list[Record]:
    """The log that a broker would have had, had it got the ticks in their order."""
    return [
        Record(
            "ticks.price", 0, offset, ts + delay_ms, symbol.encode(), _json(symbol, price, ts, seq)
        )
        for offset, (symbol, price, ts, seq) in enumerate(in_order(made))
    ]


def _json(symbol: str, price: float, ts: int, seq: int | None) -> bytes:
    of_seq = "" if seq is None else f', "seq": {seq}'
    return f'{{"symbol": "{symbol}", "price": {price!r}, "ts": {ts}{of_seq}}}'.encode()


def without_origins(rows: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Rows of `loaded_rows`, but for where they come from."""
    return [row[:11] for row in rows]


def runs_of(made: list[Tick], base: int = 0, size: int = 40) -> list[Run]:
    """What Kafka has of the same ticks, in their order, in runs of its partition 0."""
    records = [replace(one, offset=base + n) for n, one in enumerate(records_of(made))]
    made_runs = runs(records, range(size, len(records), size), base)
    return [replace(run, topic="ticks.price") for run in made_runs]


def forget_everything(postgres: str) -> None:
    """Empty the tables of ticks and of loads."""
    connection = psycopg2.connect(postgres)
    connection.autocommit = True
    connection.cursor().execute(
        "TRUNCATE tickwell.feature_rows, tickwell.entities, tickwell.watermarks, tickwell.topics,"
        " tickwell.schema_starts, tickwell.rejected_ticks, tickwell.loads CASCADE"
    )
    connection.close()
