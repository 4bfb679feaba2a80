"""What work on history costs the ticks that come meanwhile.

Freshness is that of `latency`, with both workers at work: alone, and while a load of files, an
export to the lake or a repair goes on from before the first tick that counts until after the last
one, as the commands do it, which pause while the workers are behind. It is of other symbols, in six
months that are over. All share the cores of one machine.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.latency import Meanwhile, latency
from benchmarks.processes import start
from benchmarks.results import Failed, Run
from benchmarks.services import Services, environment
from benchmarks.views import FEATURES, FIRST_NS, MONTH, MONTH_NS, MONTHS
from registry import catalog
from registry.database.engine import connect
from registry.formats.row import ValueStatus
from tickwell.settings import Settings

ALONE = "alone"
LOAD = "beside `replay --from` files"
EXPORT = "beside `lake export`"
REPAIR = "beside `repair`"
SUBJECTS = (ALONE, LOAD, EXPORT, REPAIR)
SINKS = ("online", "offline")

ROWS, CANCELS = 2_000_000, 200_000
"""Rows of history, and ticks that are cancelled in it."""

TICKS_A_FILE = 1_000_000
SYMBOLS = 500
STOP_SECONDS = 60.0
POLL_SECONDS = 0.1

STORE = """
INSERT INTO tickwell.feature_rows (
    schema_id, entity, event_time, sequence, revision, tick_time, seq, op, fields, features,
    status, known_at, topic_id, partition, "offset", index
)
SELECT %(schema)s, 'H' || i %% %(symbols)s, %(first)s + i::bigint * %(step)s, 0, 0,
    %(first)s + i::bigint * %(step)s, i, 0, ARRAY[i, 'NaN'::float8], ARRAY[i, i + 1, i + 2, 0.5],
    %(ok)s, %(first)s + i::bigint * %(step)s, '00000000-0000-0000-0000-000000000001', 0, i, 0
FROM generate_series(0, %(rows)s - 1) AS i
"""
CANCEL = """
INSERT INTO tickwell.rejected_ticks (
    topic_id, partition, "offset", index, topic, reason, detail, key, value, known_at, relayed_at
)
SELECT '00000000-0000-0000-0000-000000000001', 0, %(rows)s + i, 0, %(topic)s, 'unsupported-op',
    '', convert_to('H' || i * 9 %% %(symbols)s, 'UTF8'),
    convert_to(
        format(
            '{"symbol": "H%%s", "op": "cancel", "ts": %%s, "of": {"ts": %%s, "seq": %%s}}',
            i * 9 %% %(symbols)s, %(first)s / 1000000, (%(first)s + i * 9 * %(step)s) / 1000000,
            i * 9
        ), 'UTF8'
    ), %(first)s + (%(rows)s + i) * %(step)s, now()
FROM generate_series(0, %(cancels)s - 1) AS i
"""

Commands = Iterator[Sequence[str]]


def freshness(services: Services, seconds: float, subject: str) -> Run:
    """Milliseconds from due to read, 99th percentile, with the work of `subject` meanwhile."""
    works: dict[str, Callable[[Services], Commands]] = {
        LOAD: _loads,
        EXPORT: _exports,
        REPAIR: _repairs,
    }
    if subject == ALONE:
        return latency(services, seconds, SINKS, prepare=_store)
    return latency(
        services, seconds, SINKS, meanwhile=_beside(services, works[subject]), prepare=_store
    )


def _store(settings: Settings) -> None:
    """History of other symbols, and cancels of some of its ticks."""
    engine = connect(settings.postgres)
    try:
        with engine.begin() as connection:
            for month in range(MONTHS):
                begin = FIRST_NS + month * MONTH_NS
                connection.exec_driver_sql(MONTH.format(month, begin, begin + MONTH_NS))
            known = catalog.read(connection)
            values = {
                "schema": known.writing["price"],
                "topic": known.sources["price"].topic,
                "first": FIRST_NS,
                "step": MONTHS * MONTH_NS // ROWS // 10**6 * 10**6,
                "ok": bytes([ValueStatus.OK] * len(FEATURES)),
                "rows": ROWS,
                "symbols": SYMBOLS,
                "cancels": CANCELS,
            }
            connection.exec_driver_sql(STORE, values)
            connection.exec_driver_sql(CANCEL, values)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM ANALYZE")
            connection.exec_driver_sql("CHECKPOINT")
    finally:
        engine.dispose()


def _loads(services: Services) -> Commands:
    """Loads of one file after the other, each of symbols of its own."""
    number = 0
    while True:
        file = services.place / f"history-{number}.parquet"
        if not file.exists():
            _write(file, number)
        yield "replay", "--from", str(file), "--source", "price", "--delay", "250ms"
        number += 1


def _write(file: Path, number: int) -> None:
    chance = np.random.default_rng(number)
    index = np.arange(TICKS_A_FILE)
    table = pa.table(
        {
            "symbol": [f"F{number}_{one}" for one in (index % SYMBOLS).tolist()],
            "price": np.round(100 + chance.standard_normal(TICKS_A_FILE).cumsum() / 100, 2),
            "ts": FIRST_NS // 10**6 + index * 1_000,
            "seq": index,
        }
    )
    pq.write_table(table, file)


def _exports(services: Services) -> Commands:
    """Exports to one lake after the other."""
    number = 0
    while True:
        lake = services.place / services.postgres.rsplit("/", 1)[1] / str(number)
        yield "lake", "export", "--lake", str(lake)
        number += 1


def _repairs(services: Services) -> Commands:
    yield "repair", "price"


def _beside(services: Services, works: Callable[[Services], Commands]) -> Meanwhile:
    """Commands one after the other, the first one begun now."""

    @contextmanager
    def work(settings: Settings, begin: float, end: float) -> Iterator[None]:
        stopped, failed = Event(), list[Exception]()
        commands = works(services)
        first = next(commands)

        def go_on() -> None:
            try:
                _run(services, settings, first, commands, stopped)
            except Failed as error:
                failed.append(error)

        thread = Thread(target=go_on, name="work")
        thread.start()
        try:
            yield
        finally:
            ended = not thread.is_alive()
            stopped.set()
            thread.join()
        if failed:
            raise failed[0]
        if ended:
            raise Failed("the work was done before the last tick: it wants more rows")

    return work


def _run(
    services: Services,
    settings: Settings,
    command: Sequence[str] | None,
    commands: Commands,
    stopped: Event,
) -> None:
    while command is not None and not stopped.is_set():
        child = start("work", ["-m", "tickwell", *command], environment(settings), services.place)
        while child.popen.poll() is None and not stopped.wait(POLL_SECONDS):
            pass
        if stopped.is_set():
            child.stop()
        elif child.popen.returncode:
            child.check()
        command = next(commands, None)


def table(runs: Sequence[Run]) -> list[str]:
    """Freshness beside that of the same round without work."""
    good = [run for run in runs if not run.error]
    alone = {run.round: run for run in good if run.subject == ALONE}
    lines = [
        "| due to read, ms: median of the rounds | p50 | p99 | p99 / alone (range) | aim |",
        "|---|---|---|---|---|",
    ]
    for subject in SUBJECTS:
        found = [run for run in good if run.subject == subject]
        if not found:
            continue
        p50, p99 = (
            statistics.median(run.detail["latency_ms"][name] for run in found)
            for name in ("p50", "p99")
        )
        ratios = [(r.value or 0) / (alone[r.round].value or 1) for r in found if r.round in alone]
        shown = aim = ""
        if subject != ALONE and ratios:
            shown = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            aim = "≤ 2"
        lines.append(f"| {subject} | {p50:.1f} | {p99:.1f} | {shown} | {aim} |")
    return lines
