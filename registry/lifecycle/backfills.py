"""The backfill of a version: of which offsets it is, and how far it has come.

What a version lacks of the ticks that are stored is decided once, when its backfill begins, and
does not grow: from then on every run is stored in a row schema that holds the version. The
computation itself is that of `pipelines.backfill`, which may be stopped and begun again. Values of
ticks that are computed afterwards are no rows: workers would load them as windows in a row schema
that is over, and a view would show them in place of the tick's other features.

The ticks are read in the rows of Postgres, or in Kafka, whose log may have lost some: a backfill
from Kafka is complete when it has read what the log has, and of the rest it says nothing; nor does
it of ticks that were loaded from files. Ticks that Postgres let go of have no row that a value
could be of: no backfill that begins afterwards is of them, and they stay what the version lacks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Literal, NamedTuple
from uuid import UUID

from psycopg2 import errorcodes
from sqlalchemy import delete, func, insert, select, text, update
from sqlalchemy.exc import OperationalError

from registry.database.backfill_tables import (
    backfill_ranges,
    backfill_reads,
    backfilled_blocks,
    backfills,
)
from registry.definitions import Catalog
from registry.errors import NotAllowed
from registry.formats.loaded_rows import loaded
from registry.lifecycle.audit import audit
from registry.lifecycle.changing import Change
from registry.lifecycle.coverage import (
    OffsetRange,
    behind,
    coverage,
    let_go_of,
    schemas_holding,
    without,
)
from registry.lifecycle.states import check_not_retired, version_of

LOCK_CLASS = 724_201_908
"""The first number of the advisory lock of whoever computes a backfill; the second is its id."""

PATIENCE_MS = 10_000
"""Milliseconds to wait for a worker that holds a partition; to store a run takes a few."""

PASS = text(
    "SELECT pg_advisory_lock(lock), pg_advisory_unlock(lock)"
    " FROM tickwell.partition_lock(:topic_id, :partition) AS lock"
)

State = Literal["running", "complete", "cancelled"]
"""`running` until all is computed, also while nobody computes it."""


TicksFrom = Literal["postgres", "kafka"]
"""Where the ticks of a backfill are read."""


class BackfillRange(NamedTuple):
    """Offsets of a partition, up to, not including, `end`."""

    topic_id: bytes
    partition: int
    begin: int
    end: int


class Backfill(NamedTuple):
    """The backfill of the version `ref`, as it was when it was asked for."""

    id: int
    ref: str
    state: State
    ranges: tuple[BackfillRange, ...]
    entities: int
    """Entities that are done, those of which only some ticks are not counted."""
    ticks: int
    started_at: datetime
    started_by: str
    finished_at: datetime | None
    ticks_from: TicksFrom = "postgres"


def begin(change: Change, ref: str, ticks_from: TicksFrom | None = None) -> Backfill | None:
    """The backfill of a version, begun unless it was; None where it lacks nothing.

    One that runs goes on where it reads its ticks; where these are to come from elsewhere, it is
    begun anew, unless a process computes it. Without `ticks_from` one that begins reads the rows of
    Postgres. Raises `UnknownVersion`, and `NotAllowed` for a derived version, for one that is
    retired, where a process computes it from elsewhere, and where a worker does not end the run
    that it is storing.
    """
    feature = version_of(change.known, ref)
    if feature.source is None:
        raise NotAllowed(
            f"{ref} is derived: it is computed when it is read, of parts that have their own "
            "values, so it needs no backfill"
        )
    check_not_retired(change.known, ref)
    connection = change.connection
    found = backfill_of(change, ref)
    if found is not None and found.state == "running":
        if ticks_from in (None, found.ticks_from):
            return found
        _check_not_computed(change, found)
    _let_runs_end(change, ref)
    parts, gone = coverage(connection, change.known, ref), let_go_of(connection)
    if not any(without([one.stored], [*one.covered, *gone(one)]) for one in parts):
        return found
    # what was computed before is forgotten, so all of it counts that live has not
    wanted = [
        BackfillRange(one.partition.topic_id, one.partition.partition, *range_)
        for one in parts
        for range_ in without([one.stored], [*one.live, *gone(one)])
    ]
    begun = {
        "state": "running",
        "started_by": change.by.actor,
        "ticks_from": ticks_from or "postgres",
    }
    if found is None:
        made = insert(backfills).values(name=feature.name, version=feature.version, **begun)
        number = connection.execute(made.returning(backfills.c.id)).scalar_one()
    else:
        number = found.id
        _begin_anew(change, number, begun)
    _insert_ranges(change, number, wanted)
    offsets = sum(one.end - one.begin for one in wanted)
    told = {"offsets": offsets, "ticks_from": begun["ticks_from"]}
    audit(connection, change.by, "start backfill", ref, told)
    return backfill_of(change, ref)


def finish(change: Change, ref: str, computed: Backfill | None = None) -> Backfill | None:
    """Put on record that a backfill has computed everything; one that was cancelled stays so.

    One from Kafka is then of the offsets that it has read, and of no others. With `computed` it is
    that one: another may have been begun once nobody computed it any more, and has no values yet.
    Raises `NotAllowed` then.
    """
    found = backfill_of(change, ref)
    if computed is not None and found is not None and found.state == "running":
        _check_same(found, computed)
    if found is not None and found.state == "running" and found.ticks_from == "kafka":
        _keep_what_was_read(change, found)
    ended = _end(change, ref, "complete")
    if ended is not None:
        audit(change.connection, change.by, "complete backfill", ref, {"ticks": ended.ticks})
    return backfill_of(change, ref)


def cancel(change: Change, ref: str) -> None:
    """Have the backfill of a version, if one is running, compute nothing more."""
    ended = _end(change, ref, "cancelled")
    if ended is not None:
        audit(change.connection, change.by, "cancel backfill", ref, {"ticks": ended.ticks})


def backfill_of(change: Change, ref: str) -> Backfill | None:
    """The backfill of a version, None if it never had one."""
    name, _, version = ref.partition("@")
    wanted = select(backfills).where(backfills.c.name == name, backfills.c.version == version)
    row = change.connection.execute(wanted).one_or_none()
    if row is None:
        return None
    of = backfill_ranges.c
    ranges = change.connection.execute(
        select(of.topic_id, of.partition, of.from_offset, of.to_offset)
        .where(of.backfill == row.id)
        .order_by(of.topic_id, of.partition, of.from_offset)
    )
    return Backfill(
        id=row.id,
        ref=ref,
        state=row.state,
        ranges=tuple(BackfillRange(each.topic_id.bytes, *each[1:]) for each in ranges),
        entities=row.entities,
        ticks=row.ticks,
        started_at=row.started_at,
        started_by=row.started_by,
        finished_at=row.finished_at,
        ticks_from=row.ticks_from,
    )


def lost(before: Backfill, after: Backfill) -> tuple[BackfillRange, ...]:
    """What a backfill was of when it was begun, and is not of once it is complete."""
    kept = _by_partition(after.ranges)
    return tuple(
        BackfillRange(*where, *range_)
        for where, ranges in _by_partition(before.ranges).items()
        for range_ in without(ranges, kept.get(where, ()))
    )


def schemas_to_read(catalog: Catalog, ref: str) -> dict[int, bool]:
    """The row schemas with the ticks of a backfill, by id; whether a tick in one is to be computed.

    That is every one without the version. Before the last of them others may hold it, whose ticks
    are in the windows of later ones.
    """
    version = version_of(catalog, ref)
    holding = schemas_holding(catalog, version)
    schemas = catalog.schemas.values()
    every = sorted(schema.id for schema in schemas if schema.source == version.source)
    newest = max((one for one in every if one not in holding), default=0)
    return {one: one not in holding for one in every if one <= newest}


def _let_runs_end(change: Change, ref: str) -> None:
    """Wait for runs that began to be stored before the version was recorded.

    They are in a row schema that lacks it, and may be the first ones of their partitions.
    `tickwell.check_schema` refuses all later ones, so each lock is given back at once, and no
    worker waits for it. Raises `NotAllowed` where a run does not end.
    """
    limit = text(f"SET LOCAL lock_timeout = {PATIENCE_MS}")
    change.connection.execute(limit)
    for one in behind(change.connection, change.known, ref):
        topic, topic_id, partition = one.partition
        where = {"topic_id": UUID(bytes=topic_id), "partition": partition}
        try:
            change.connection.execute(PASS, where)
        except OperationalError as error:
            if getattr(error.orig, "pgcode", None) != errorcodes.LOCK_NOT_AVAILABLE:
                raise
            raise NotAllowed(
                f"{topic}[{partition}] was held for longer than {PATIENCE_MS // 1000} s, and what "
                f"is stored there may lack {ref}: is a worker stopped in the middle of a run "
                "(pg_stat_activity shows it)? Let it go on, or end it, and begin again"
            ) from None


def _check_not_computed(change: Change, found: Backfill) -> None:
    """Raises `NotAllowed` where a process computes a backfill now."""
    free = select(func.pg_try_advisory_xact_lock(LOCK_CLASS, found.id))
    if not change.connection.execute(free).scalar_one():
        raise NotAllowed(
            f"{found.ref} is being backfilled from {found.ticks_from}: wait for that, or stop it"
        )


def _check_same(found: Backfill, computed: Backfill) -> None:
    """Raises `NotAllowed` where a backfill was begun anew since one was computed."""
    if (found.id, found.started_at) != (computed.id, computed.started_at):
        raise NotAllowed(
            f"the backfill of {found.ref} was begun anew meanwhile, from {found.ticks_from}, by "
            f"{found.started_by}: `tickwell backfill {found.ref}` goes on with that one"
        )


def _insert_ranges(change: Change, number: int, ranges: Iterable[BackfillRange]) -> None:
    rows = [
        {
            "backfill": number,
            "topic_id": UUID(bytes=one.topic_id),
            "partition": one.partition,
            "from_offset": one.begin,
            "to_offset": one.end,
        }
        for one in ranges
    ]
    if rows:
        change.connection.execute(insert(backfill_ranges), rows)


def _keep_what_was_read(change: Change, found: Backfill) -> None:
    """Take from the ranges of a backfill what it has not read, and count its entities."""
    connection, of = change.connection, backfill_reads.c
    read: dict[tuple[bytes, int], list[OffsetRange]] = {}
    for row in connection.execute(select(backfill_reads).where(of.backfill == found.id)):
        where = row.topic_id.bytes, row.partition
        read.setdefault(where, []).append(OffsetRange(row.from_offset, row.next_offset))
    kept = [
        BackfillRange(*where, *range_)
        for where, ranges in _by_partition(found.ranges).items()
        for range_ in without(ranges, without(ranges, read.get(where, ())))
    ]
    connection.execute(delete(backfill_ranges).where(backfill_ranges.c.backfill == found.id))
    _insert_ranges(change, found.id, kept)
    blocks = backfilled_blocks.c
    entities = select(func.count(blocks.entity.distinct())).where(blocks.backfill == found.id)
    counted = {"entities": entities.scalar_subquery()}
    connection.execute(update(backfills).where(backfills.c.id == found.id).values(counted))


def _by_partition(
    ranges: Iterable[BackfillRange],
) -> dict[tuple[bytes, int], list[OffsetRange]]:
    found: dict[tuple[bytes, int], list[OffsetRange]] = {}
    for one in ranges:
        found.setdefault((one.topic_id, one.partition), []).append(OffsetRange(one.begin, one.end))
    return found


def _begin_anew(change: Change, number: int, begun: Mapping[str, Any]) -> None:
    """Forget what a backfill has computed: other ticks are wanted than when it began."""
    connection = change.connection
    blocks = backfilled_blocks.c.backfill.in_([number, loaded(number)])
    connection.execute(delete(backfilled_blocks).where(blocks))
    for table in (backfill_ranges, backfill_reads):
        connection.execute(delete(table).where(table.c.backfill == number))
    connection.execute(
        update(backfills)
        .where(backfills.c.id == number)
        .values(
            entity=None,
            event_time=None,
            sequence=None,
            of_loads=False,
            entities=0,
            ticks=0,
            started_at=func.now(),
            finished_at=None,
            **begun,
        )
    )


def _end(change: Change, ref: str, state: State) -> Backfill | None:
    """Move a backfill that is running to a state; None where none is running."""
    name, _, version = ref.partition("@")
    ended = change.connection.execute(
        update(backfills)
        .where(
            backfills.c.name == name,
            backfills.c.version == version,
            backfills.c.state == "running",
        )
        .values(state=state, finished_at=func.now())
    )
    return backfill_of(change, ref) if ended.rowcount else None
