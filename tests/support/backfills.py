"""Backfills of tests, and what they have stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from threading import Event
from typing import NamedTuple

from sqlalchemy import Engine

from pipelines.backfill.backfill import BackfillWork
from pipelines.backfill.computing import Done
from registry.lifecycle.audit import By
from registry.lifecycle.backfills import Backfill
from registry.lifecycle.registry import Registry
from tests.support.sinks import GO_ON, query

BLOCKS = """
SELECT name || '@' || version, block.entity, first_event_time, first_sequence, last_event_time,
    unit, steps, long_steps, values, statuses, sign(backfill)
FROM tickwell.backfilled_blocks AS block JOIN tickwell.backfills AS made ON made.id = abs(backfill)
ORDER BY 1, 2, 3, 4
"""
OK = 0


class Tick(NamedTuple):
    """A tick as its entity's rows tell it."""

    entity: str
    event_time: int
    sequence: int


Values = Mapping[Tick, tuple[str, int]]
"""The bits of a value, and its status."""


def blocks(postgres: str, ref: str, sign: int = 1) -> dict[Tick, tuple[str, int]]:
    """The values that are stored in blocks, each once; of loaded ticks with the sign -1."""
    found: dict[Tick, tuple[str, int]] = {}
    for each, entity, first, sequence, last, unit, *arrays, statuses, of in query(postgres, BLOCKS):
        if (each, of) != (ref, sign):
            continue
        steps, long_steps, values = arrays
        times = [first + unit * step for step in steps or long_steps]
        assert times == sorted(times)
        assert times[-1] == last
        codes = [OK] * len(times) if statuses is None else list(bytes(statuses))
        before = None
        for time, value, status in zip(times, values, codes, strict=True):
            if before is not None:
                sequence = sequence + 1 if time == before else 0
            tick, before = Tick(entity, time, sequence), time
            assert tick not in found
            found[tick] = float(value).hex(), status
    return found


def rows(postgres: str, source: str, ref: str) -> Iterator[tuple[Tick, tuple[str, int]]]:
    """The values of a version in rows."""
    yield from (
        (Tick(*tick), (float(value).hex(), status))
        for *tick, value, status in query(
            postgres,
            "SELECT entity, event_time, sequence, features[number], get_byte(status, number - 1)"
            " FROM tickwell.feature_rows JOIN ("
            "   SELECT id, array_position(features, '" + ref + "') AS number"
            "   FROM tickwell.row_schemas WHERE source = '" + source + "'"
            " ) AS schema ON schema.id = schema_id WHERE number IS NOT NULL",
        )
    )


def begun(engine: Engine, ref: str) -> Backfill:
    found = Registry(engine, By("ann")).begin_backfill(ref)
    assert found is not None
    return found


def backfill(
    engine: Engine, postgres: str, ref: str, rows_a_piece: int = 1000, pieces: int | None = None
) -> Done:
    """Backfill a version, and stop after some pieces, if given; as the command does."""
    registry = Registry(engine, By("ann"))
    one = begun(engine, ref)
    work = BackfillWork(postgres, registry.catalog(), one, rows_a_piece)
    stop, done = GO_ON if pieces is None else Event(), []

    def report(each: Done) -> None:
        done.append(each)
        if len(done) == pieces:
            stop.set()

    found = work.run(report, stop)
    if found.finished:
        registry.finish_backfill(ref, one)
    return found
