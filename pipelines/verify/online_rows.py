"""Compares the rows in Redis with those of the same ticks in Postgres.

Never newest with newest: either store may be ahead of the other. Of each row in Redis its tick is
looked up in Postgres, which may not be that far yet. And as Redis moves a partition's watermark
once all before it is stored, a row there may not be older than the newest tick before the watermark
that was read first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np

from pipelines.stores.postgres.connection import Database
from pipelines.stores.redis.client import answers
from pipelines.stores.redis.connection import WarmRedis
from pipelines.verify.stored_blocks import ARRAY_BYTES, FLOAT
from registry.comparisons import Difference, Kind, Place, Tally, bits_text
from registry.definitions import Catalog, Source
from registry.errors import CorruptRow
from registry.formats.entity_name import key_values
from registry.formats.origin import Origin
from registry.formats.redis_keys import rows_key, watermark_key
from registry.formats.row import Row, ValueStatus, unpack
from registry.resources import sql

ROWS_AT, NEWEST_BEFORE = sql(__package__, "rows_at"), sql(__package__, "newest_before")
WATERMARKS, EXTENT = sql(__package__, "watermarks"), sql(__package__, "extent")

ENTITIES_A_CALL = 256
"""Entities that are compared at a time."""

ONE_MOMENT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"

Watermarks = dict[tuple[bytes, int], int]
"""The next offset to read, by topic incarnation and partition."""


class _Stored(NamedTuple):
    """The row of a tick in Postgres, in one row schema."""

    schema_id: int
    known_at: int
    origin: Origin
    status: bytes
    values: Sequence[float]


class _Known(NamedTuple):
    """What Postgres knows of some entities, all at one moment."""

    rows: Mapping[int, Sequence[_Stored]]
    """Those of the tick that Redis has, by the entity's number."""
    newest: Mapping[int, tuple[int, int]]
    """Event time and sequence of the newest tick that Redis must have."""
    first: Mapping[int, int]
    """The event time of the first tick that is stored."""
    watermarks: Watermarks


class OnlineRows:
    """Compares the rows of one source in the Redis `warm` with those in `database`."""

    def __init__(
        self, warm: WarmRedis, database: Database, catalog: Catalog, source: Source
    ) -> None:
        self._warm = warm
        self._database = database
        self._catalog = catalog
        self._source = source
        schemas = catalog.schemas.values()
        self._schemas = sorted(one.id for one in schemas if one.source == source.name)

    def compare(self, entities: Sequence[str]) -> Tally:
        """Compare the rows of entities. Raises `StoreUnavailable`."""
        found = Tally()
        for begin in range(0, len(entities), ENTITIES_A_CALL):
            found.add(self._compared(entities[begin : begin + ENTITIES_A_CALL]))
        return found

    def _compared(self, entities: Sequence[str]) -> Tally:
        with self._database.transaction() as cursor:
            offline = self._watermarks(cursor)
        online = self._online_watermarks(offline)
        packed = self._packed(entities)
        tally, rows = Tally(), dict[int, Row]()
        for number, entity in enumerate(entities):
            found = packed[entity]
            if found is None:
                continue
            try:
                rows[number] = unpack(found)
            except CorruptRow as error:
                told = (str(error), "a row")
                tally.differs(self._difference(Kind.SHAPE, entity, None, None, told))
        known = self._known(entities, rows, online)
        for number, entity in enumerate(entities):
            row, newest = rows.get(number), known.newest.get(number)
            if row is not None:
                self._compare(entity, number, row, known, tally)
            elif packed[entity] is None and newest is not None:
                told = ("no row", "one at or behind this tick")
                tally.differs(self._difference(Kind.ABSENT, entity, newest, None, told))
        return tally

    def _compare(self, entity: str, number: int, row: Row, known: _Known, tally: Tally) -> None:
        key = row.event_time, row.sequence
        newest = known.newest.get(number)
        if newest is not None and key < newest:
            told = (_tick(*key), f"{_tick(*newest)}, or a later one")
            tally.differs(self._difference(Kind.BEHIND, entity, key, None, told))
        stored = known.rows.get(number, ())
        if not stored:
            self._not_found(entity, number, row, known, tally)
            return
        origin = stored[0].origin, stored[0].known_at
        if origin != (row.origin, row.known_at):
            told = (_origin(row.origin, row.known_at), _origin(*origin))
            tally.differs(self._difference(Kind.ORIGIN, entity, key, None, told))
            return
        schema = self._catalog.schemas.get(row.schema_id)
        if schema is None or len(schema.features) != len(row.values):
            told = (f"{len(row.values)} values in the row schema {row.schema_id}", "those of it")
            if schema is None:  # it is newer than the catalog
                tally.unverifiable += len(row.values)
            else:
                tally.differs(self._difference(Kind.SHAPE, entity, key, None, told))
            return
        for ref, value, status in zip(schema.features, row.values, row.status, strict=True):
            expected = self._value(stored, ref)
            if expected is None:
                tally.not_yet_stored += 1
                continue
            tally.values += 1
            if (_text(value, status)) != _text(*expected):
                kind = Kind.VALUE if status == expected[1] else Kind.STATUS
                told = (_text(value, status), _text(*expected))
                tally.differs(self._difference(kind, entity, key, ref, told))

    def _not_found(self, entity: str, number: int, row: Row, known: _Known, tally: Tally) -> None:
        """Count a row whose tick Postgres does not have."""
        where = row.origin.topic_id, row.origin.partition
        if row.origin.offset >= known.watermarks.get(where, 0):
            tally.not_yet_stored += len(row.values)
        elif row.event_time < known.first.get(number, row.event_time + 1):
            tally.unverifiable += len(row.values)
        else:
            key = row.event_time, row.sequence
            told = (_origin(row.origin, row.known_at), "no such tick is stored in Postgres")
            tally.differs(self._difference(Kind.ABSENT, entity, key, None, told))

    def _value(self, stored: Sequence[_Stored], ref: str) -> tuple[float, int] | None:
        """The value of a version and its status in whichever row has it."""
        for one in stored:
            features = self._catalog.schemas[one.schema_id].features
            if ref in features and len(features) == len(one.values) == len(one.status):
                index = features.index(ref)
                return one.values[index], one.status[index]
        return None

    def _difference(
        self,
        kind: Kind,
        entity: str,
        tick: tuple[int, int] | None,
        feature: str | None,
        told: tuple[str, str],
    ) -> Difference:
        time, sequence = tick or (None, None)
        named = Place.REDIS, kind, self._source.name, key_values(entity)
        return Difference(*named, time, sequence, feature, *told)

    # ------------------------------------------------------------ the stores

    def _packed(self, entities: Sequence[str]) -> dict[str, bytes | None]:
        found: dict[str, bytes | None] = {}
        client = self._warm.connect()
        for bucket, group in self._warm.groups(entities):
            with answers():
                rows = client.hmget(rows_key(self._source.name, bucket), list(group))
            found |= dict(zip(group, rows, strict=True))
        return found

    def _online_watermarks(self, offline: Watermarks) -> Watermarks:
        """What Redis has stored of the partitions that Postgres knows."""
        found: Watermarks = {}
        for where in offline:
            value = self._warm.get(watermark_key(*where))
            if value is not None:
                found[where] = int(value)
        return found

    def _watermarks(self, cursor: Any) -> Watermarks:
        cursor.execute(WATERMARKS, {"topic": self._source.topic})
        return {(UUID(topic).bytes, partition): n for topic, partition, n in cursor.fetchall()}

    def _known(
        self, entities: Sequence[str], rows: Mapping[int, Row], online: Watermarks
    ) -> _Known:
        asked = {
            "entities": [entities[number] for number in rows],
            "times": [row.event_time for row in rows.values()],
            "sequences": [row.sequence for row in rows.values()],
            "schemas": self._schemas,
        }
        of_all = {
            "entities": list(entities),
            "schemas": self._schemas,
            "topics": [str(UUID(bytes=topic)) for topic, _ in online],
            "partitions": [partition for _, partition in online],
            "offsets": list(online.values()),
        }
        numbers = list(rows)
        stored: dict[int, list[_Stored]] = {}
        with self._database.transaction() as cursor:
            cursor.execute(ONE_MOMENT)
            cursor.execute(ROWS_AT, asked)
            for number, schema, known_at, topic, *origin, status, features in cursor.fetchall():
                values = np.frombuffer(features, FLOAT, offset=ARRAY_BYTES)["value"].tolist()
                made = Origin(UUID(topic).bytes, *origin)
                one = _Stored(schema, known_at, made, bytes(status), values)
                stored.setdefault(numbers[number - 1], []).append(one)
            cursor.execute(NEWEST_BEFORE, of_all)
            newest = {number - 1: (time, sequence) for number, time, sequence in cursor.fetchall()}
            cursor.execute(EXTENT, of_all)
            first = {number - 1: time for number, time, _ in cursor.fetchall()}
            return _Known(stored, newest, first, self._watermarks(cursor))


def _tick(event_time: int, sequence: int) -> str:
    return f"the tick {sequence} of {event_time}"


def _origin(origin: Origin, known_at: int) -> str:
    topic = UUID(bytes=origin.topic_id)
    where = f"{topic}[{origin.partition}]@{origin.offset}.{origin.index}"
    return f"{where}, known at {known_at}"


def _text(value: float, status: int) -> str:
    known = status in ValueStatus.__members__.values()
    name = ValueStatus(status).name.lower() if known else f"status {status}"
    return f"{bits_text(value)}, {name}"
