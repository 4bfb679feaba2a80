"""The window states of entities, read from their rows in Postgres: a row holds its tick."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from io import BytesIO
from time import monotonic
from typing import Any
from uuid import UUID

import numpy as np

from pipelines.compute.entity_names import EntityNames
from pipelines.compute.entity_state import LoadedStates, StateColumns, joined
from pipelines.errors import StateOfOtherFields
from pipelines.stores.postgres.connection import Database
from pipelines.stores.postgres.row_copy import CHUNK_BYTES, HEADER, TRAILER, array_of, sized
from pipelines.ticks.columns import NO_SEQ, TRADE
from registry.definitions import Source
from registry.formats.origin import Origin
from registry.formats.row import ValueStatus
from registry.formats.state import CLOSED
from registry.resources import sql

KNOWN, TICKS = sql(__package__, "known_entities"), sql(__package__, "load_ticks")
COPY = "COPY ({}) TO STDOUT (FORMAT binary)"

FIRST_TICKS, MOST_TICKS = 6_400, 32_000
"""Ticks that the first statement of a load may read, of 100 entities with 64 each, and that a later
one may; its answer is 6 MB. A statement must be short (`connection.STATEMENT_TIMEOUT_MS`), and may
have to skip all rows that are stored beyond the offset, so a load begins with few entities."""

QUICK_SECONDS = 1.0
"""A statement that took less is followed by one of twice as many entities."""


def load_states(
    database: Database,
    source: Source,
    entities: EntityNames,
    depth: int,
    before: Origin,
    since: int = 0,
    only: Collection[str] | None = None,
) -> LoadedStates:
    """The states that those of `entities` with rows had when a partition was at `before`.

    At most `depth` ticks each, of all row schemas: another worker may write one that this process
    does not know yet. Of that partition only rows from offset `since` on count. With `only`, no
    other entities are looked for. Raises `StoreUnavailable` and `StateOfOtherFields`.
    """
    wanted = {
        "depth": depth,
        "topic_id": str(UUID(bytes=before.topic_id)),
        "partition": before.partition,
        "since": since,
        "before": before.offset,
        "no_seq": NO_SEQ,
        "closed": bytes([ValueStatus.CLOSED]),
    }
    names, parts = list(entities), []
    with database.transaction() as cursor:
        cursor.execute(KNOWN, {"source": source.name, "entities": names})
        wanted["schemas"], found = cursor.fetchone()
    known = set(found) if only is None else set(found).intersection(only)
    places = [place for place, name in enumerate(names) if name in known]
    many, most, start = max(1, FIRST_TICKS // depth), max(1, MOST_TICKS // depth), 0
    while start < len(places):
        piece, began = places[start : start + many], monotonic()
        some = {**wanted, "entities": [names[i] for i in piece]}
        parts.append(states_of(database, TICKS, some, piece, source))
        start += len(piece)
        if monotonic() - began < QUICK_SECONDS:
            many = min(2 * many, most)
    return joined(parts, len(source.fields))


def states_of(
    database: Database,
    statement: str,
    wanted: Mapping[str, Any],
    places: Sequence[int],
    source: Source,
) -> LoadedStates:
    """The states after the ticks that a statement gives, in the form of `load_ticks.sql`.

    `places` are the indexes that its entities have for the caller. Raises `StoreUnavailable` and
    `StateOfOtherFields`.
    """
    with database.transaction() as cursor:
        ticks = _copied(cursor, statement, wanted, source)
    # at once: the answers take five times the memory of the states
    return _states(np.array(places, np.int64)[ticks["place"] - 1], ticks)


def _copied(cursor: Any, statement: str, wanted: Mapping[str, Any], source: Source) -> Any:
    """The ticks that a statement gives, as `_tick_row`."""
    sent, dtype = BytesIO(), _tick_row(len(source.fields))
    cursor.copy_expert(COPY.format(cursor.mogrify(statement, wanted).decode()), sent, CHUNK_BYTES)
    rows = sent.getbuffer()[len(HEADER) : -len(TRAILER)]
    whole, rest = divmod(len(rows), dtype.itemsize)
    ticks = np.frombuffer(rows, dtype, whole)
    if rest or (ticks["fields_length"] != len(source.fields)).any():
        raise StateOfOtherFields(
            source.name,
            f"rows in Postgres have ticks with another number of fields than the "
            f"{len(source.fields)} of {source.name}",
        )
    return ticks


def _tick_row(fields: int) -> np.dtype[np.void]:
    """A row of `load_ticks.sql` in PostgreSQL's binary COPY format."""
    return np.dtype(
        [
            ("columns", ">i2"),
            *sized("place", ">i4"),
            *sized("event_time", ">i8"),
            *sized("sequence", ">i8"),
            *sized("tick_time", ">i8"),
            *sized("seq", ">i8"),
            *sized("op", ">i2"),
            *array_of("fields", fields),
            *sized("topic_id", "V16"),
            *sized("partition", ">i4"),
            *sized("offset", ">i8"),
            *sized("index", ">i4"),
            *sized("closed", "?"),
        ]
    )


def _states(place: Any, ticks: Any) -> LoadedStates:
    """The states after ticks in any order; `place` are the indexes of their entities."""
    order = np.lexsort((ticks["sequence"], ticks["event_time"], place))
    place, ticks = place[order], ticks[order]
    which, begins = np.unique(place, return_index=True)
    ends = np.append(begins, len(place)).astype(np.int64)
    newest = ticks[ends[1:] - 1]

    def column(name: str, dtype: Any = np.int64) -> Any:
        return newest[name].astype(dtype)

    return LoadedStates(
        which.astype(np.int64),
        newest["topic_id"],
        StateColumns(
            partition=column("partition", np.int32),
            offset=column("offset"),
            message_index=column("index", np.int32),
            sequence=column("sequence"),
            event_time=column("event_time"),
            accepted=np.diff(ends),
            fill=np.where(newest["closed"], CLOSED, _ticks_since(ticks["op"] != TRADE, ends)),
            ends=ends,
            tick_time=ticks["tick_time"].astype(np.int64),
            seq=ticks["seq"].astype(np.int64),
            fields=ticks["fields"]["value"].astype(np.float64),
        ),
    )


def _ticks_since(emptied: Any, ends: Any) -> Any:
    """How many ticks of each entity are newer than the last one that emptied its windows."""
    if not len(emptied):
        return np.empty(0, np.int64)
    last = np.maximum.reduceat(np.where(emptied, np.arange(len(emptied)), -1), ends[:-1])
    return ends[1:] - 1 - np.maximum(last, ends[:-1] - 1)
