"""What is recorded of loads: of which files, how far they are, and what they met.

A load is recorded, with everything that decides how it goes on, in one transaction before its first
row is stored; so is that it is done.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Engine, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from pipelines.load.errors import LoadElsewhere
from pipelines.load.identity import FileContents
from pipelines.load.sorted_runs import Span
from pipelines.load.spill import Spilled
from pipelines.stores.postgres.connection import CONNECTION
from pipelines.stores.postgres.transactions import LIMITS, transaction
from registry.catalog import read
from registry.database.active_columns import update_active_columns
from registry.database.engine import connect, dsn, opened
from registry.database.load_tables import load_overlaps, load_partitions, loads
from registry.formats.loaded_rows import load_topic, loaded
from registry.lifecycle.changing import LOCK

LOCK_CLASS = 724_201_909
"""The first number of the advisory lock of whoever loads ticks; the second is of their source."""

ID_SHOWN = 8
"""Characters of a load's id that tell it from others on a screen."""


class Begun(NamedTuple):
    """What a load is made of, as it is when it begins; `schema_id` is that of live's rows."""

    load_id: bytes
    source: str
    schema_id: int
    rules: int
    files: Sequence[FileContents]
    mapping: Mapping[str, Any]
    by: str


@dataclass(frozen=True, slots=True)
class RecordedLoad:
    """A load, and what is stored of it. Times of ticks are nanoseconds UTC."""

    load_id: bytes
    source: str
    schema_id: int
    rules: int
    files: tuple[FileContents, ...]
    began_at: datetime
    began_by: str
    finished_at: datetime | None
    forgotten_at: datetime | None
    first_time: int | None
    last_time: int | None
    offsets: int
    ends: int
    rows: int
    passed_over: int
    rejected: int

    @property
    def id_shown(self) -> str:
        """The beginning of its id, by which people name it."""
        return self.load_id.hex()[:ID_SHOWN]

    @property
    def name(self) -> str:
        """How it is named where rows have a topic."""
        return load_topic(self.source)


class Loads:
    """The tables of loads in the database of `engine`. Methods raise `StoreUnavailable`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @classmethod
    @contextmanager
    def at(cls, url: str) -> Iterator[Loads]:
        """The tables in the database at `url`."""
        engine = connect(url, **LIMITS, pool_size=1, max_overflow=0)
        try:
            yield cls(engine)
        finally:
            engine.dispose()

    @property
    def engine(self) -> Engine:
        """What connects to the database."""
        return self._engine

    def find(self, load_id: bytes) -> RecordedLoad | None:
        """A load that was begun, finished or not."""
        with self.connection() as connection:
            found = _recorded(connection, load_id)
        return found[0] if found else None

    def all(self) -> list[RecordedLoad]:
        """All loads, the newest first."""
        with self.connection() as connection:
            return _recorded(connection)

    def named(self, load: str) -> list[RecordedLoad]:
        """The loads whose id begins so, in hex."""
        return [one for one in self.all() if one.load_id.hex().startswith(load)]

    def schemas(self, source: str, but: bytes) -> list[int]:
        """The ids under which rows of other loads of a source are stored."""
        wanted = (
            select(loads.c.schema_id)
            .where(loads.c.source == source, loads.c.id != UUID(bytes=but))
            .distinct()
        )
        with self.connection() as connection:
            return [loaded(found) for found in connection.execute(wanted).scalars()]

    def earlier(self, source: str, begun: RecordedLoad | None) -> list[bytes]:
        """The loads of a source that were done when one began, or are done now."""
        wanted = select(loads.c.id).where(loads.c.source == source).order_by(loads.c.id)
        if begun is None:
            wanted = wanted.where(loads.c.finished_at.is_not(None))
        else:
            own = loads.alias("own")
            began = select(own.c.began_at).where(own.c.id == UUID(bytes=begun.load_id))
            wanted = wanted.where(loads.c.finished_at <= began.scalar_subquery())
        with self.connection() as connection:
            return [found.bytes for found in connection.execute(wanted).scalars()]

    def unfinished(self, source: str, but: bytes, span: Span) -> list[RecordedLoad]:
        """Other loads of a source that were begun and are not done, with ticks of some times."""
        return [
            one
            for one in self.all()
            if (one.source, one.finished_at) == (source, None)
            and one.load_id != but
            and one.first_time is not None
            and one.last_time is not None
            and one.first_time <= span.last
            and one.last_time >= span.first
        ]

    def begin(self, begun: Begun, spilled: Spilled, overlaps: Mapping[str, Span]) -> None:
        """Record a load, unless it is recorded."""
        load_id = UUID(bytes=begun.load_id)
        row = {
            "id": load_id,
            "source": begun.source,
            "schema_id": begun.schema_id,
            "rules": begun.rules,
            "files": [one._asdict() for one in begun.files],
            "mapping": dict(begun.mapping),
            "first_time": spilled.first,
            "last_time": spilled.last,
            "began_by": begun.by,
        }
        parts = [
            {"load": load_id, "partition": number, "ends": ticks}
            for number, ticks in enumerate(spilled.ticks)
            if ticks
        ]
        met = [
            {"load": load_id, "entity": entity, "first_time": span.first, "last_time": span.last}
            for entity, span in overlaps.items()
        ]
        with self.connection() as connection:
            # views show the rows of loads from the first one of a row schema on
            connection.execute(select(func.pg_advisory_xact_lock(LOCK)))
            made = connection.execute(upsert(loads).values(row).on_conflict_do_nothing())
            if made.rowcount:
                connection.execute(insert(load_partitions), parts)
                if met:
                    connection.execute(insert(load_overlaps), met)
                update_active_columns(connection, read(connection))

    def progress(self, load_id: bytes) -> dict[int, tuple[int, int]]:
        """Of each partition of a load how many offsets are done, and how many there are."""
        of = load_partitions.c
        wanted = select(of.partition, of.next_offset, of.ends).where(of.load == UUID(bytes=load_id))
        with self.connection() as connection:
            return {number: (done, ends) for number, done, ends in connection.execute(wanted)}

    def overlaps(self, load_id: bytes) -> dict[str, Span]:
        """The times between which ticks of entities were stored before a load."""
        of = load_overlaps.c
        wanted = select(of.entity, of.first_time, of.last_time).where(
            of.load == UUID(bytes=load_id)
        )
        with self.connection() as connection:
            found = connection.execute(wanted)
            return {entity: Span(first, last) for entity, first, last in found}

    def finish(self, load_id: bytes) -> None:
        """Record that a load is done, if all its partitions are."""
        left = (
            select(1)
            .where(
                load_partitions.c.load == loads.c.id,
                load_partitions.c.next_offset < load_partitions.c.ends,
            )
            .exists()
        )
        done = (
            update(loads)
            .where(
                loads.c.id == UUID(bytes=load_id),
                loads.c.finished_at.is_(None),
                loads.c.forgotten_at.is_(None),
                ~left,
            )
            .values(finished_at=func.now())
        )
        with self.connection() as connection:
            connection.execute(done)

    def connection(self) -> AbstractContextManager[Connection]:
        """A transaction."""
        return transaction(self._engine)


@contextmanager
def alone(postgres: str, source: str) -> Iterator[None]:
    """One load of a source at a time: they are compared with what is stored before they begin.

    Raises `LoadElsewhere`.
    """
    with closing(opened(dsn(postgres, **CONNECTION, application_name="tickwell load"))) as session:
        session.autocommit = True
        with session.cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_lock(%s, hashtext(%s))", (LOCK_CLASS, source))
            if not cursor.fetchone()[0]:
                raise LoadElsewhere(source)
        yield


def _recorded(connection: Connection, load_id: bytes | None = None) -> list[RecordedLoad]:
    of, sums = load_partitions.c, ("next_offset", "ends", "rows", "passed_over", "rejected")
    counted = (
        select(of.load, *(func.sum(of[name]).label(name) for name in sums))
        .group_by(of.load)
        .subquery()
    )
    wanted = (
        select(loads, *(func.coalesce(counted.c[name], 0).label(name) for name in sums))
        .outerjoin(counted, counted.c.load == loads.c.id)
        .order_by(loads.c.began_at.desc())
    )
    if load_id is not None:
        wanted = wanted.where(loads.c.id == UUID(bytes=load_id))
    return [
        RecordedLoad(
            load_id=row.id.bytes,
            source=row.source,
            schema_id=row.schema_id,
            rules=row.rules,
            files=tuple(FileContents(**one) for one in row.files),
            began_at=row.began_at.astimezone(UTC),
            began_by=row.began_by,
            finished_at=row.finished_at,
            forgotten_at=row.forgotten_at,
            first_time=row.first_time,
            last_time=row.last_time,
            offsets=int(row.next_offset),
            ends=int(row.ends),
            rows=int(row.rows),
            passed_over=int(row.passed_over),
            rejected=int(row.rejected),
        )
        for row in connection.execute(wanted)
    ]
