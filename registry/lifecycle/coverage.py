"""Coverage: of which offsets a version of a feature has values.

Live stores each run in one row schema, and records where a row schema begins in a partition
(`tickwell.schema_starts`). So a version has values where the row schemas that hold it are stored:

    offsets of a partition    0 ──────────── 120 ─────────── 300 ──► watermark (400)
    row schema                  1              2               3
    a version that 2 and 3 hold                [120,                 400)

An offset may hold no tick, or one that was rejected: it has no value in any version, and counts as
covered all the same. A partition in which nothing was stored yet has no ranges. One in which
nothing was stored yet in a row schema that holds the version has none either, and all that is
stored there is what the version lacks. A replay, which stores old ticks again in the newest row
schema, moves no start.

What is stored without a version can be computed afterwards (`registry.lifecycle.backfills`). The
ranges of a backfill count once it is complete.

Ticks that were loaded from files are offsets of partitions, too, those of their load.

A derived version is computed when it is read: it has no ranges of its own, and lacks nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from itertools import pairwise
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, and_, exists, select

from registry.database.backfill_tables import backfill_ranges, backfills
from registry.database.lake_tables import dropped_offsets
from registry.database.load_tables import load_partitions, loads
from registry.database.tables import (
    carried_over,
    row_schemas,
    schema_starts,
    topics,
    watermarks,
)
from registry.definitions import Catalog, FeatureVersion, Source
from registry.formats.heartbeat import Heartbeat
from registry.formats.loaded_rows import load_topic
from registry.lifecycle.states import version_of


class OffsetRange(NamedTuple):
    """The offsets from `begin` up to, not including, `end`."""

    begin: int
    end: int


Ranges = tuple[OffsetRange, ...]
"""Ranges in the order of their offsets, which neither overlap nor meet."""


class TopicPartition(NamedTuple):
    """A partition of a topic incarnation."""

    topic: str
    topic_id: bytes
    partition: int


class PartitionCoverage(NamedTuple):
    """What a version has values of in a partition, of which `stored` offsets are stored at all.

    `backfilled` are the ranges that were computed afterwards.
    `is_current` says that the topic was not made anew since.
    """

    partition: TopicPartition
    is_current: bool
    stored: OffsetRange
    live: Ranges
    backfilled: Ranges = ()

    @property
    def covered(self) -> Ranges:
        """Everything, in whichever way it was computed."""
        return united([*self.live, *self.backfilled])


class Holes(NamedTuple):
    """What a version lacks in a partition."""

    partition: TopicPartition
    ranges: Ranges


class Behind(NamedTuple):
    """Whether newest rows of entities of a partition may still lack a version, in each store.

    An entity that does not tick gets its row in a newer row schema after that is recorded, when a
    worker comes to it. `online` is None where no worker says anything of the partition.
    """

    partition: TopicPartition
    offline: bool
    online: bool | None


def coverage(connection: Connection, catalog: Catalog, ref: str) -> list[PartitionCoverage]:
    """What the version `ref` (`name@version`) has values of, in each partition that is stored.

    In the order of the incarnations of the topic and of the partitions. What is stored in a row
    schema that `catalog` does not know counts as not covered. Raises `UnknownVersion`.
    """
    version = version_of(catalog, ref)
    if version.source is None:
        return []
    has = _Has(schemas_holding(catalog, version), _backfilled(connection, version))
    return [part.coverage(has) for part in _parts(connection, catalog.sources[version.source])]


def let_go_of(connection: Connection) -> Callable[[PartitionCoverage], Ranges]:
    """What gives, of a partition, the offsets of whose ticks the lake alone has all rows."""
    of = dropped_offsets.c
    ends = {
        (row.topic_id.bytes, row.partition): row.next_offset
        for row in connection.execute(select(of.topic_id, of.partition, of.next_offset))
    }

    def gone(part: PartitionCoverage) -> Ranges:
        end = ends.get((part.partition.topic_id, part.partition.partition), 0)
        return (OffsetRange(0, end),) if end else ()

    return gone


def holes(connection: Connection, catalog: Catalog, name: str, version: str) -> list[Holes]:
    """What the active version of the feature `name` has values of, and the given version has not.

    Of the current incarnation of the topic, and of the partitions where there is something. A
    feature of which no version is active, or one that is derived, lacks nothing. Raises
    `UnknownVersion`.
    """
    given = version_of(catalog, f"{name}@{version}")
    active = catalog.features.get(f"{name}@{catalog.active.get(name)}")
    if given.source is None or active is None or active.source is None:
        return []
    has, wants = (
        _Has(schemas_holding(catalog, one), _backfilled(connection, one)) for one in (given, active)
    )
    found = []
    for part in _parts(connection, catalog.sources[given.source]):
        lacks = without(part.coverage(wants).covered, part.coverage(has).covered)
        if part.is_current and lacks:
            found.append(Holes(part.partition, lacks))
    return found


def is_recorded_only(connection: Connection, catalog: Catalog, ref: str) -> bool:
    """Whether no run was stored yet, in any partition, in a row schema that holds a version.

    It is the state *recorded*; a version of which a run is stored, if only of ticks that were
    rejected, is computed on each tick. A derived version always is. Raises `UnknownVersion`.
    """
    version = version_of(catalog, ref)
    if version.source is None:
        return False
    stored = exists().where(schema_starts.c.schema_id.in_(schemas_holding(catalog, version)))
    return not connection.execute(select(stored)).scalar_one()


def behind(
    connection: Connection,
    catalog: Catalog,
    ref: str,
    heartbeats: Iterable[Heartbeat] = (),
) -> list[Behind]:
    """Of each partition of the current incarnation whether entities may lack the version `ref`.

    What is said of Redis comes from the `heartbeats` of online workers. A derived version lacks
    nothing, and has no partitions. Raises `UnknownVersion`.
    """
    version = version_of(catalog, ref)
    if version.source is None:
        return []
    complete = _complete(catalog, version)
    topic = catalog.sources[version.source].topic
    current = connection.execute(
        select(topics.c.topic_id, topics.c.partitions)
        .where(topics.c.topic == topic)
        .order_by(topics.c.incarnation.desc())
        .limit(1)
    ).one_or_none()
    if current is None:
        return []
    noted = select(carried_over.c.partition).where(
        carried_over.c.topic_id == current.topic_id, carried_over.c.schema_id.in_(complete)
    )
    offline = set(connection.execute(noted).scalars())
    online: dict[int, bool] = {}
    for beat in heartbeats:
        if beat.sink == "online":
            read = {lag.partition: False for lag in beat.lag if lag.topic == topic}
            carried = {
                one.partition: one.schema_id in complete
                for one in beat.carried
                if one.topic_id == current.topic_id.hex
            }
            for partition, is_done in (read | carried).items():
                online[partition] = online.get(partition, False) or is_done
    always = len(complete) == len(_of_source(catalog, version.source))
    return [
        Behind(
            TopicPartition(topic, current.topic_id.bytes, partition),
            offline=not (always or partition in offline),
            online=False if always else _negated(online.get(partition)),
        )
        for partition in range(current.partitions)
    ]


def schemas_holding(catalog: Catalog, version: FeatureVersion) -> Set[int]:
    """The row schemas that hold a version."""
    return {schema.id for schema in catalog.schemas.values() if version.ref in schema.features}


def united(ranges: Iterable[OffsetRange]) -> Ranges:
    """What is in any of some ranges."""
    found: list[OffsetRange] = []
    for one in sorted(ranges):
        if one.begin >= one.end:
            continue
        if found and one.begin <= found[-1].end:
            found[-1] = OffsetRange(found[-1].begin, max(found[-1].end, one.end))
        else:
            found.append(one)
    return tuple(found)


def without(ranges: Iterable[OffsetRange], taken: Iterable[OffsetRange]) -> Ranges:
    """What is in any of `ranges` and in none of `taken`."""
    left = united(ranges)
    for gone in united(taken):
        left = tuple(
            piece
            for one in left
            for piece in (
                OffsetRange(one.begin, min(one.end, gone.begin)),
                OffsetRange(max(one.begin, gone.end), one.end),
            )
            if piece.begin < piece.end
        )
    return left


class _Start(NamedTuple):
    """Where a row schema begins in a partition; in the order in which they were stored."""

    offset: int
    schema_id: int


class _Has(NamedTuple):
    """Where values of a version are: the row schemas that hold it, and what was backfilled."""

    schemas: Set[int]
    backfilled: Mapping[tuple[bytes, int], list[OffsetRange]]


class _Part(NamedTuple):
    """A partition, and what is recorded of it."""

    partition: TopicPartition
    is_current: bool
    watermark: int
    starts: list[_Start]

    def coverage(self, has: _Has) -> PartitionCoverage:
        """What a version has values of."""
        ends = [*self.starts, _Start(self.watermark, 0)]
        first = min(self.watermark, ends[0].offset)
        live = united(
            OffsetRange(start.offset, min(following.offset, self.watermark))
            for start, following in pairwise(ends)
            if start.schema_id in has.schemas
        )
        stored = OffsetRange(first, self.watermark)
        later = united(has.backfilled.get((self.partition.topic_id, self.partition.partition), ()))
        return PartitionCoverage(self.partition, self.is_current, stored, live, later)


def _parts(connection: Connection, source: Source) -> list[_Part]:
    """The partitions of a source that are stored, as one statement sees them."""
    found: dict[tuple[bytes, int], _Part] = {}
    for row in connection.execute(_reading(source)):
        partition = TopicPartition(row.topic, row.topic_id.bytes, row.partition)
        part = _Part(partition, row.is_current, row.next_offset, [])
        known = found.setdefault((partition.topic_id, partition.partition), part)
        if row.schema_id is not None:
            known.starts.append(_Start(row.from_offset, row.schema_id))
    return [*found.values(), *_parts_of_loads(connection, source)]


def _parts_of_loads(connection: Connection, source: Source) -> list[_Part]:
    """The partitions of the loads of a source: each load is stored in one row schema."""
    of, whole = load_partitions.c, loads.c
    wanted = (
        select(of.load, of.partition, of.next_offset, whole.schema_id)
        .join(loads, whole.id == of.load)
        .where(whole.source == source.name, of.next_offset > 0)
        .order_by(whole.began_at, whole.id, of.partition)
    )
    topic = load_topic(source.name)
    return [
        _Part(TopicPartition(topic, load.bytes, partition), True, done, [_Start(0, schema_id)])
        for load, partition, done, schema_id in connection.execute(wanted)
    ]


def _reading(source: Source) -> Select[Any]:
    """Each partition of a source's topic, with each row schema that was stored there."""
    newer = topics.alias()
    made_anew = exists().where(
        newer.c.topic == topics.c.topic, newer.c.incarnation > topics.c.incarnation
    )
    of_source = select(row_schemas.c.id).where(row_schemas.c.source == source.name)
    return (
        select(
            watermarks.c.topic,
            watermarks.c.topic_id,
            watermarks.c.partition,
            watermarks.c.next_offset,
            (~made_anew).label("is_current"),
            schema_starts.c.schema_id,
            schema_starts.c.from_offset,
        )
        .join(topics, topics.c.topic_id == watermarks.c.topic_id)
        .outerjoin(
            schema_starts,
            and_(
                schema_starts.c.topic_id == watermarks.c.topic_id,
                schema_starts.c.partition == watermarks.c.partition,
                schema_starts.c.schema_id.in_(of_source),
            ),
        )
        .where(watermarks.c.topic == source.topic)
        .order_by(
            topics.c.incarnation,
            watermarks.c.partition,
            schema_starts.c.from_offset,
            schema_starts.c.schema_id,
        )
    )


def _backfilled(
    connection: Connection, version: FeatureVersion
) -> dict[tuple[bytes, int], list[OffsetRange]]:
    """The ranges of a version's backfill by partition, if that is complete."""
    of, found = backfill_ranges.c, dict[tuple[bytes, int], list[OffsetRange]]()
    wanted = (
        select(of.topic_id, of.partition, of.from_offset, of.to_offset)
        .join(backfills, backfills.c.id == of.backfill)
        .where(
            backfills.c.name == version.name,
            backfills.c.version == version.version,
            backfills.c.state == "complete",
        )
    )
    for topic_id, partition, begin, end in connection.execute(wanted):
        found.setdefault((topic_id.bytes, partition), []).append(OffsetRange(begin, end))
    return found


def _of_source(catalog: Catalog, source: str) -> list[int]:
    """The row schemas of a source, the oldest first."""
    return sorted(schema.id for schema in catalog.schemas.values() if schema.source == source)


def _complete(catalog: Catalog, version: FeatureVersion) -> Set[int]:
    """The row schemas from which on all hold a version."""
    found, holding = set[int](), schemas_holding(catalog, version)
    for schema_id in reversed(_of_source(catalog, version.source or "")):
        if schema_id not in holding:
            break
        found.add(schema_id)
    return found


def _negated(known: bool | None) -> bool | None:
    return None if known is None else not known
