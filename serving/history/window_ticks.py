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

WINDOW_TICKS, LOADS = sql(__package__, "window_ticks"), sql(__package__, "loads_in_window")
OPERATIONS = ("trade", "reset", "close")
"""By the number that a row has of its tick's operation."""

TRADE, RESET, CLOSE = range(3)


class TickKey(NamedTuple):
    """A tick of an entity: its event time, nanoseconds UTC, and its sequence.

    One that came from files, and one of live, may have the same key, and other windows.
    """

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


class Window(NamedTuple):
    """Which ticks are in the windows of a stored value."""

    entity: str
    newest: TickKey
    loaded: bool = False
    """Whether they came from files."""
    backfill: int | None = None
    """The backfill that computed the value."""


def stored_tick(
    snapshot: Snapshot, source: Source, window: Window, any_kind: bool = False
) -> StoredTick | None:
    """The newest tick of a window, of live or of loads; `any_kind` looks for either."""
    for is_loaded in dict.fromkeys([window.loaded, window.loaded or any_kind]):
        found = _found(snapshot, source, window._replace(loaded=is_loaded), 1, None)
        if found and found[-1].key == window.newest:
            return found[-1]
    return None


def window_ticks(snapshot: Snapshot, source: Source, window: Window, most: int) -> list[StoredTick]:
    """The newest tick and those before it, at most `most` together, the oldest first."""
    loads = None
    if window.loaded:
        tick = stored_tick(snapshot, source, window)
        asked = {
            "source": source.name,
            "backfill": window.backfill,
            "load": None if tick is None else tick.shown.topic_id,
        }
        loads = [number for (number,) in snapshot.rows(LOADS, asked)]
    return _found(snapshot, source, window, most, loads)


def _found(
    snapshot: Snapshot, source: Source, window: Window, most: int, loads: Sequence[str] | None
) -> list[StoredTick]:
    schemas = [one.id for one in snapshot.catalog.schemas.values() if one.source == source.name]
    newest = window.newest
    wanted = {
        "entity": window.entity,
        "schemas": list(map(loaded, schemas)) if window.loaded else schemas,
        "loads": loads,
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
