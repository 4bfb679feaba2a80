"""What a load meets: ticks of its entities that are stored already, compared before it begins.

Of an entity the load may have ticks

    before those that are stored     they are new
    between the first and the last   each must be equal to one there, and each there to one of these
    after them                       they are new where all that is stored was loaded, too

Live's ticks are never followed by loaded ones: they would be in the windows of none of those that
live stores next. So a load is older than all that Kafka has brought of an entity, or equal to it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np
import pyarrow as pa

from pipelines.compute.batch import Batch
from pipelines.compute.entity_names import EntityNames
from pipelines.compute.entity_state import LoadedStates, joined
from pipelines.errors import Stopped
from pipelines.load.errors import RowsDiffer
from pipelines.load.load import Load
from pipelines.load.load_sink import APPLICATION
from pipelines.load.sorted_runs import Span, sorted_runs, sorter
from pipelines.load.spill import PARTITIONS, entities_file
from pipelines.replay.stop import Stop
from pipelines.stores.postgres.connection import Database
from pipelines.stores.postgres.row_copy import copy_bytes, stage_rows
from pipelines.ticks.event_time import EPOCH
from registry.definitions import Source
from registry.formats.origin import Origin
from registry.resources import sql

EXISTING, DIFFERENCES = sql(__package__, "existing"), sql(__package__, "differences")

ENTITIES_A_PIECE = 2_000
"""Entities that one statement asks about."""


class _Met(NamedTuple):
    """Ticks of an entity that are stored already between the first and the last of the load."""

    entity: str
    span: Span
    ticks: int


class _Existing(NamedTuple):
    """What was found: what must be compared, and what cannot be equal."""

    met: list[_Met]
    refused: list[str]
    ticks: int
    """How many ticks are refused."""


def overlaps(load: Load, stop: Stop) -> dict[str, Span]:
    """Of each entity the times between which its ticks are stored already, and equal.

    Raises `RowsDiffer`, `StoreUnavailable` and `Stopped`.
    """
    spans: dict[str, Span] = {}
    refused: list[str] = []
    ticks = 0
    with closing(Database(load.postgres, APPLICATION)) as database:
        for number in range(PARTITIONS):
            found = _existing(load, number, database)
            if found.met:
                other = _different(load, number, database, found.met, stop)
                refused += other.refused
                ticks += other.ticks
                spans |= {one.entity: one.span for one in found.met}
            refused += found.refused
            ticks += found.ticks
    if refused:
        raise RowsDiffer(sorted(refused), ticks)
    return spans


def entity_count(load: Load) -> int:
    """How many entities a load has."""
    return sum(len(piece) for n in range(PARTITIONS) for piece in _entities(load, n))


def _entities(load: Load, number: int) -> Iterator[list[Any]]:
    """The entities of a partition with their first and last times and ticks, some at a time."""
    file = entities_file(load.directory, number)
    if not file.exists():
        return
    with (
        sorter(load.directory / f"entities-{number}") as connection,
        pa.OSFile(str(file)) as opened,
        pa.ipc.open_stream(opened) as known,
    ):
        connection.register("known", known)
        found = connection.execute(
            "SELECT entity, min(first), max(last), sum(ticks)::BIGINT FROM known"
            " GROUP BY entity ORDER BY entity"
        )
        while piece := found.fetchmany(ENTITIES_A_PIECE):
            yield piece


def _existing(load: Load, number: int, database: Database) -> _Existing:
    met: list[_Met] = []
    refused: list[str] = []
    ticks = 0
    for piece in _entities(load, number):
        names, firsts, lasts, many = (list(column) for column in zip(*piece, strict=True))
        wanted = {"entities": names, "firsts": firsts, "lasts": lasts, **_where(load)}
        with database.transaction() as cursor:
            cursor.execute(EXISTING, wanted)
            found = cursor.fetchall()
        for index, first, last, stored, live in found:
            entity, end = names[index], lasts[index]
            if live is not None and live <= end and (not stored or last < end):
                refused.append(
                    f"{entity} has ticks at {as_text(end)}, after those from Kafka, which begin at "
                    f"{as_text(live)}"
                )
                ticks += many[index]
            elif stored:
                met.append(_Met(entity, Span(first, last), stored))
    return _Existing(met, refused, ticks)


def _different(
    load: Load, number: int, database: Database, met: Sequence[_Met], stop: Stop
) -> _Existing:
    """Which of the entities have ticks there that are not equal, one to one."""
    equal = dict.fromkeys((one.entity for one in met), 0)
    refused: dict[str, str] = {}
    ticks = 0
    spans = {one.entity: one.span for one in met}
    computation, partition = load.computation(), load.partition(number)
    for one in sorted_runs(partition, 0, {}, equal.keys(), load.run_ticks):
        if stop.is_set():
            raise Stopped("nothing was stored")
        decoded = computation.decode(one.run)
        if decoded.missing:
            computation.restore(decoded, _nothing)
        batch = computation.compute(decoded)
        for entity, same, other, time, fields in _compared(database, load, batch, spans):
            equal[entity] += same
            ticks += other
            if other:
                refused.setdefault(entity, f"{entity} at {as_text(time)} {_told(fields)}")
    for each in met:
        if each.entity not in refused and equal[each.entity] != each.ticks:
            missing = each.ticks - equal[each.entity]
            refused[each.entity] = (
                f"{each.entity} lacks {missing:,} ticks that are stored between "
                f"{as_text(each.span.first)} and {as_text(each.span.last)}"
            )
            ticks += missing
    return _Existing([], list(refused.values()), ticks)


def _compared(
    database: Database, load: Load, batch: Batch, spans: Mapping[str, Span]
) -> list[tuple[str, int, int, int, str]]:
    names = list(batch.names)
    wanted = {
        "entities": names,
        "firsts": [spans[name].first for name in names],
        "lasts": [spans[name].last for name in names],
        **_where(load),
    }
    if not _touches(batch, wanted["firsts"], wanted["lasts"]):
        return []
    with database.transaction() as cursor:
        stage_rows(cursor, copy_bytes(batch))
        cursor.execute(DIFFERENCES, wanted)
        return list(cursor.fetchall())


def _touches(batch: Batch, firsts: Any, lasts: Any) -> bool:
    """Whether a tick of a batch is where its entity has stored ones."""
    first, last = np.array(firsts, np.int64), np.array(lasts, np.int64)
    times = batch.event_time
    return bool(((times >= first[batch.name]) & (times <= last[batch.name])).any())


def _where(load: Load) -> dict[str, Any]:
    """The row schemas in which rows may be that a load meets."""
    schemas = load.catalog.schemas.values()
    return {
        "source": load.source,
        "load": str(UUID(bytes=load.load_id)),
        "schemas": [one.id for one in schemas if one.source == load.source],
        "loaded": list(load.others),
    }


def _nothing(source: Source, entities: EntityNames, depth: int, before: Origin) -> LoadedStates:
    """No state: what is compared begins with empty windows."""
    return joined([], len(source.fields))


def _told(fields: str) -> str:
    """What a difference is, from the fields of both ticks as JSON."""
    own, stored = json.loads(fields)
    if stored is None:
        return f"has {own}, where nothing is stored"
    return f"has {own}, where {stored} is stored" if own != stored else "has another seq or op"


def as_text(nanoseconds: int) -> str:
    """A time, nanoseconds UTC, for people."""
    moment = EPOCH + timedelta(microseconds=nanoseconds // 1000)
    return moment.isoformat().replace("+00:00", "Z")
