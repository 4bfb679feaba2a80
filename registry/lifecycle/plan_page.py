"""A page from which a person can decide whether to apply a features file.

It says what would be recorded, what that costs, what it breaks and for whom, and what stays as it
is. The values that new versions would have are not on it: they are of a moment, and computed where
ticks are (`tickwell.planned_values`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import cached_property
from typing import Literal

from msgspec import Struct
from sqlalchemy import Connection, func, select

from registry.database.tables import entities, topics, watermarks
from registry.definitions import Catalog, Definitions, FeatureVersion, Source
from registry.formats.row import FEATURE_BYTES, HEADER
from registry.language.program import lookback
from registry.lifecycle import histories
from registry.lifecycle.changes import Changes
from registry.lifecycle.histories import PlannedHistory
from registry.lifecycle.states import numbers, state_of, users
from registry.lifecycle.usage import RecentReader, recent_usage
from registry.source_rules import SourceRules, changed_rules
from registry.wording import Differing, differing

COMPARED = (
    *("entity", "expression", "source", "over", "parts", "max_age_ns"),
    *("unit", "description", "owner", "tags", "aliases"),
)
"""What two versions are compared by."""

STORED_FEATURE_BYTES = 9
"""Bytes that a feature takes in each row of Postgres: its value and its status."""

MOST_UNDECLARED = 10
"""Versions that a sentence names."""

MOST_READ = 50
"""Versions of which a page names the recent readers: those that are read most."""


class PlannedVersion(Struct, frozen=True):
    """A version that would be recorded.

    `becomes` is the state that it will have, and `active` the version that its name means now, as
    `name@version`. `differs` compares it with `compared_with`, its parent or else the newest
    version there is. It needs `ticks` ticks of an entity for its first value, and `records`
    messages (at most) came before it, for which it has no values.
    """

    ref: str
    expression: str
    of: str
    becomes: Literal["active", "standby"]
    parts: tuple[str, ...]
    active: str | None
    compared_with: str | None
    differs: tuple[Differing, ...]
    ticks: int | None
    records: int | None


class PlannedRow(Struct, frozen=True):
    """The rows of a source before and after: versions in each, and bytes of each.

    `online_bytes` are those of a row in Redis, of which there is one an entity; beside it are the
    newest ticks of the entity, of at most `state_bytes`, however many versions there are.
    `offline_bytes` come to each row of Postgres, of which there is one a tick.
    """

    source: str
    versions: tuple[int, int]
    online_bytes: tuple[int, int]
    state_bytes: int
    offline_bytes: int
    entities: int


class Reworded(Struct, frozen=True):
    """A recorded version of which only words would change."""

    ref: str
    differs: tuple[Differing, ...]


class PlannedReaders(Struct, frozen=True):
    """Who has read a version lately that a change concerns, and `why` it does.

    `readers` are the consumers with the most reads, and `more` others have read it too.
    """

    ref: str
    why: str
    readers: tuple[RecentReader, ...]
    more: int


class Page(Struct, frozen=True):
    """What applying a file would do. `breaks` and `stays` are sentences for a person.

    `undeclared` are versions and sets that stay although the file does not declare them. `read` are
    recent readers; `more_read` versions are concerned and read too.
    """

    new: tuple[PlannedVersion, ...]
    reworded: tuple[Reworded, ...]
    unchanged: int
    new_sources: tuple[str, ...]
    changed_rules: tuple[str, ...]
    sets: tuple[str, ...]
    rows: tuple[PlannedRow, ...]
    breaks: tuple[str, ...]
    stays: tuple[str, ...]
    histories: tuple[PlannedHistory, ...]
    undeclared: tuple[str, ...]
    read: tuple[PlannedReaders, ...]
    more_read: int


def page_of(
    connection: Connection,
    known: Catalog,
    definitions: Definitions,
    changes: Changes,
    now: datetime,
) -> Page:
    """The page about changes of what is known; `now` is when versions count as read lately.

    Raises `DefinitionError` for what can never change of a source.
    """
    entities_of = _entities(connection)
    kept = (*changes.sources, *changes.reworded_sources)
    planning = _Planning(known, definitions, changes)
    concerned = dict(planning.concerned())
    read = _read(connection, concerned, now)
    return Page(
        new=tuple(planning.new(_records(connection))),
        reworded=tuple(
            Reworded(one.ref, tuple(differing(known.features[one.ref], one, COMPARED)))
            for one in changes.reworded
        ),
        unchanged=len(changes.unchanged),
        new_sources=tuple(source.name for source in changes.sources),
        changed_rules=tuple(_changed_rules(known, definitions)),
        sets=tuple(one.ref for one in changes.sets),
        rows=tuple(planning.rows(entities_of)),
        breaks=tuple(planning.breaks()),
        stays=tuple(planning.stays()),
        histories=tuple(histories.planned(known, kept, entities_of)),
        undeclared=tuple(planning.undeclared),
        read=tuple(read[:MOST_READ]),
        more_read=max(0, len(read) - MOST_READ),
    )


class _Planning:
    """Changes of what is known, seen from several sides; what many sides need is found once."""

    def __init__(self, known: Catalog, definitions: Definitions, changes: Changes) -> None:
        self._known = known
        self._declared = definitions
        self._changes = changes
        self._sources: Mapping[str, Source] = known.sources | {
            source.name: source for source in definitions.sources
        }
        self._users = users(known)
        self._versions = defaultdict[str, list[FeatureVersion]](list)
        for feature in known.features.values():
            self._versions[feature.name].append(feature)

    def new(self, records: Mapping[str, int]) -> Iterator[PlannedVersion]:
        """The versions that would be recorded; of topics there are so many `records`."""
        for feature in self._changes.versions:
            other = self._compared(feature)
            source = None if feature.source is None else self._sources[feature.source]
            is_active = self._changes.activated.get(feature.name) == feature.version
            needed = None if source is None else lookback(feature.expression, source, feature.ref)
            yield PlannedVersion(
                ref=feature.ref,
                expression=feature.expression,
                of=feature.source or f"({', '.join(feature.entity)})",
                becomes="active" if is_active else "standby",
                parts=feature.parts,
                active=self._active(feature.name),
                compared_with=None if other is None else other.ref,
                differs=() if other is None else tuple(differing(other, feature, COMPARED)),
                ticks=needed,
                records=None if source is None else records.get(source.topic, 0),
            )

    def rows(self, counts: Mapping[str, int]) -> Iterator[PlannedRow]:
        """The rows that would be others; of sources there are so many entities (`counts`)."""
        known = self._known
        for source, refs in self._changes.rows.items():
            writing = known.writing.get(source)
            before = 0 if writing is None else len(known.schemas[writing].features)
            kept = self._sources[source]
            yield PlannedRow(
                source=source,
                versions=(before, len(refs)),
                online_bytes=(
                    HEADER.size + FEATURE_BYTES * before,
                    HEADER.size + FEATURE_BYTES * len(refs),
                ),
                state_bytes=kept.history * histories.tick_bytes(kept),
                offline_bytes=STORED_FEATURE_BYTES * (len(refs) - before),
                entities=counts.get(source, 0),
            )

    def breaks(self) -> Iterator[str]:
        """What somebody who reads today would not find any more, or find otherwise."""
        for one in self._changes.reworded:
            recorded = self._known.features[one.ref]
            if gone := self._gone(one):
                names = ", ".join(gone)
                yield f"requests for {names} (until now another name of {one.ref}) get 404"
            if recorded.unit and recorded.unit != one.unit:
                yield f"{one.ref} is said to be in `{one.unit}` instead of `{recorded.unit}`"

    def concerned(self) -> Iterator[tuple[str, str]]:
        """The recorded versions whose readers a change concerns, and why; the last reason counts.

        Those from which readers lose something come last.
        """
        known = self._known
        for feature in self._changes.versions:
            yield from ((part, f"{feature.ref} is computed of it") for part in feature.parts)
        for feature in self._changes.versions:
            active = self._active(feature.name)
            for user in self._users.get(active or "", ()):
                if user in known.features:
                    yield user, f"it is computed of {active}, and keeps to it"
        for feature in self._changes.versions:
            active = self._active(feature.name)
            if active is not None:
                yield active, f"who asks for it by name gets {feature.ref} once that is activated"
        for one in self._changes.reworded:
            recorded = known.features[one.ref]
            if recorded.unit and recorded.unit != one.unit:
                yield one.ref, f"it is said to be in `{one.unit}` instead of `{recorded.unit}`"
            if gone := self._gone(one):
                yield one.ref, f"it is not called {', '.join(gone)} any more"

    def stays(self) -> Iterator[str]:
        """What a person may think to have changed, and has not."""
        for feature in self._changes.versions:
            active = self._active(feature.name)
            if active is None:
                continue
            pinning = ", ".join(self._users.get(active, ()))
            pinned = f"; {pinning} pin {active} and keep to it" if pinning else ""
            yield f"{feature.name} still means {active} until {feature.ref} is activated{pinned}"
        for source in self._changes.reworded_sources:
            kept = self._known.sources[source.name].history
            if source.history > kept:
                yield (
                    f"of an entity of {source.name} Redis has the {kept:,} newest ticks at most, "
                    f"and keeps {source.history:,} once so many have come: until then a version "
                    f"that needs more than {kept:,} is `warming` online, and offline it is not"
                )
        left = self.undeclared
        if left:
            states = {ref: state_of(self._known, ref) for ref in left[:MOST_UNDECLARED]}
            shown = ", ".join(f"{ref} ({state})" for ref, state in states.items())
            more = len(left) - MOST_UNDECLARED
            yield (
                f"the file does not declare {shown}{f' and {more} more' if more > 0 else ''}: they "
                "are served as before, until they are deprecated and retired"
            )

    @cached_property
    def undeclared(self) -> list[str]:
        """Versions, the active ones first, and sets that the file does not declare."""
        known, declared = self._known, {one.ref for one in self._declared.sets}
        versions = sorted(
            self._changes.undeclared, key=lambda ref: state_of(known, ref) != "active"
        )
        sets = (ref for ref in known.sets if ref not in declared and not known.is_retired(ref))
        return [*versions, *sets]

    def _active(self, name: str) -> str | None:
        version = self._known.active.get(name)
        return None if version is None else f"{name}@{version}"

    def _gone(self, reworded: FeatureVersion) -> list[str]:
        """The names that a feature has no more, because its active version has not."""
        if state_of(self._known, reworded.ref) != "active":
            return []
        recorded = self._known.features[reworded.ref]
        return [alias for alias in recorded.aliases if alias not in reworded.aliases]

    def _compared(self, feature: FeatureVersion) -> FeatureVersion | None:
        """What a person compares a new version with."""
        if feature.parent is not None:
            parent = self._known.features.get(f"{feature.name}@{feature.parent}")
            if parent is not None:
                return parent
        own = numbers(feature.version)
        lower = [one for one in self._versions[feature.name] if numbers(one.version) < own]
        return max(lower, key=lambda one: numbers(one.version), default=None)


def _read(
    connection: Connection, concerned: Mapping[str, str], now: datetime
) -> list[PlannedReaders]:
    """Those of the versions that somebody has read lately, the most read ones first."""
    recent = recent_usage(connection, concerned, now)
    read = sorted(recent, key=lambda ref: (-recent[ref].reads_a_day, ref))
    return [
        PlannedReaders(ref, concerned[ref], recent[ref].named, recent[ref].more) for ref in read
    ]


def _changed_rules(known: Catalog, definitions: Definitions) -> Iterator[str]:
    for source in definitions.sources:
        if source.name in known.sources:
            recorded = SourceRules.of(known, source.name).source
            changed = changed_rules(recorded, source, f"{definitions.file}: source {source.name}")
            if changed:
                yield f"source {source.name}: its {changed}"


def _records(connection: Connection) -> dict[str, int]:
    """Messages that are stored of each topic, at most: the sum of the watermarks."""
    newest = select(func.max(topics.c.incarnation)).group_by(topics.c.topic)
    found = connection.execute(
        select(topics.c.topic, func.sum(watermarks.c.next_offset))
        .join(watermarks, watermarks.c.topic_id == topics.c.topic_id)
        .where(topics.c.incarnation.in_(newest))
        .group_by(topics.c.topic)
    )
    return {topic: int(total) for topic, total in found}


def _entities(connection: Connection) -> dict[str, int]:
    counted = select(entities.c.source, func.count()).group_by(entities.c.source)
    return {row.source: row[1] for row in connection.execute(counted)}
