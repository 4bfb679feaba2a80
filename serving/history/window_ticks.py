"""The ticks in the window of a stored value, as Postgres keeps them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from registry.definitions import Source
from registry.formats.loaded_rows import loaded, row_schema_of
from registry.formats.row import ValueStatus
from registry.resources import sql
from serving.features.times import to_rfc_3339
from serving.history.explanation import Number, WindowTick
from serving.history.snapshot import Snapshot

WINDOW_TICKS = sql(__package__, "window_ticks")
OPERATIONS = ("trade", "reset", "close")
"""By the number that a row has of its tick's operation."""

TRADE, RESET, CLOSE = range(3)


class TickKey(NamedTuple):
    """A tick of an entity: its event time, nanoseconds UTC, and its sequence."""

    event_time: int
    sequence: int


class StoredTick(NamedTuple):
    """A tick, and what its rows say."""

    key: TickKey
    known_at: int
    op: int
    fields: Sequence[float]
    closed: bool
    values: Mapping[int, tuple[Sequence[float], bytes]]
    """Its features and their statuses in each row schema that has it, by id."""
    loaded: bool
    """Whether it came from files, and is in windows of such ticks alone."""
    shown: WindowTick


class Filled(NamedTuple):
    """How many ticks are in an entity's windows, and since when."""

    ticks: int
    closed: bool
    since_reset: bool
    """Whether the first of them follows a reset or a close."""


def window_ticks(
    snapshot: Snapshot, source: Source, entity: str, newest: TickKey, most: int
) -> list[StoredTick]:
    """A tick of an entity and those before it, at most `most` together, the oldest first.

    Those before one that was loaded from files are loaded, too.
    """
    schemas = [one.id for one in snapshot.catalog.schemas.values() if one.source == source.name]
    found = _found(snapshot, source, schemas, entity, newest, most)
    if not found or found[-1].key != newest:
        of_loads = _found(snapshot, source, list(map(loaded, schemas)), entity, newest, most)
        if of_loads and of_loads[-1].key == newest:
            return of_loads
    return found


def _found(
    snapshot: Snapshot,
    source: Source,
    schemas: Sequence[int],
    entity: str,
    newest: TickKey,
    most: int,
) -> list[StoredTick]:
    wanted = {
        "entity": entity,
        "schemas": list(schemas),
        "event_time": newest.event_time,
        "sequence": newest.sequence,
        "most": most,
        "closed": bytes([ValueStatus.CLOSED]),
    }
    found: dict[TickKey, list[Any]] = {}
    for row in snapshot.rows(WINDOW_TICKS, wanted):
        found.setdefault(TickKey(row.event_time, row.sequence), []).append(row)
    newest_first = list(found.items())[:most]
    return [_tick(source, key, rows) for key, rows in reversed(newest_first)]


def filled(ticks: Sequence[StoredTick]) -> Filled:
    """What is in the windows after the last of some ticks that follow each other.

    A reset empties them; a close does as well, and only a trade ends it.
    """
    count, closed, since_reset = 0, ticks[0].closed, False
    for tick in ticks:
        if tick.op == TRADE:
            count, closed = count + 1, False
        else:
            count, closed, since_reset = 0, closed or tick.op == CLOSE, True
    return Filled(count, closed, since_reset)


def _tick(source: Source, key: TickKey, rows: Sequence[Any]) -> StoredTick:
    row = rows[0]
    return StoredTick(
        key=key,
        known_at=row.known_at,
        op=row.op,
        fields=row.fields,
        closed=row.closed,
        values={row_schema_of(one.schema_id): (one.features, bytes(one.status)) for one in rows},
        loaded=row.schema_id < 0,
        shown=WindowTick(
            topic=row.topic,
            topic_id=row.topic_id,
            partition=row.partition,
            offset=row.offset,
            index=row.index,
            tick_time=to_rfc_3339(row.tick_time),
            event_time=to_rfc_3339(row.event_time),
            sequence=row.sequence,
            known_at=to_rfc_3339(row.known_at),
            seq=row.seq,
            op=OPERATIONS[row.op],
            fields={
                name: Number.of(value)
                for name, value in zip(source.field_names, row.fields, strict=False)
            },
            closed=row.closed,
        ),
    )
