"""A page from which a person can decide whether to apply a features file.

A plan says what would be recorded, what it costs, what it breaks and what stays as it is. Saved, it
is the text of the file with the serial of the registry: it is applied only to the registry that it
was made for (`recording.record`), and says nothing that is not true then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Literal

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, func, select

from registry.database.tables import entities, topics, watermarks
from registry.definitions import Catalog, Definitions, FeatureVersion, Source
from registry.errors import InvalidPlan, PlanTooLarge
from registry.formats.row import FEATURE_BYTES, HEADER
from registry.language.program import lookback
from registry.lifecycle import histories
from registry.lifecycle.changes import Changes
from registry.lifecycle.histories import PlannedHistory
from registry.lifecycle.states import numbers, state_of, users_of, versions_of
from registry.serial import Serial
from registry.source_rules import SourceRules, changed_rules
from registry.wording import Differing, differing

FORMAT: Literal[1] = 1
LONGEST_FILE = 20_000_000
"""Bytes of a saved plan that are read."""

COMPARED = (
    *("entity", "expression", "source", "over", "parts", "max_age_ns"),
    *("unit", "description", "owner", "tags", "aliases"),
)
"""What two versions are compared by."""

STORED_FEATURE_BYTES = 9
"""Bytes that a feature takes in each row of Postgres: its value and its status."""


class PlannedVersion(Struct, frozen=True):
    """A version that would be recorded.

    `becomes` is the state that it will have. `differs` compares it with `compared_with`, its parent
    or else the newest version there is. It needs `ticks` ticks of an entity for its first value,
    and `records` messages (at most) came before it, for which it has no values.
    """

    ref: str
    expression: str
    of: str
    becomes: Literal["active", "standby"]
    parts: tuple[str, ...]
    compared_with: str | None
    differs: tuple[Differing, ...]
    ticks: int | None
    records: int | None


class PlannedRow(Struct, frozen=True):
    """The rows of a source before and after: versions in each, and bytes of each.

    `online_bytes` are those of a row in Redis, of which there is one an entity; `offline_bytes`
    come to each row of Postgres, of which there is one a tick.
    """

    source: str
    versions: tuple[int, int]
    online_bytes: tuple[int, int]
    offline_bytes: int
    entities: int


class Reworded(Struct, frozen=True):
    """A recorded version of which only words would change."""

    ref: str
    differs: tuple[Differing, ...]


class Page(Struct, frozen=True):
    """What applying a file would do. `breaks` and `stays` are sentences for a person."""

    new: tuple[PlannedVersion, ...]
    reworded: tuple[Reworded, ...]
    unchanged: int
    new_sources: tuple[str, ...]
    changed_rules: tuple[str, ...]
    sets: tuple[str, ...]
    rows: tuple[PlannedRow, ...]
    breaks: tuple[str, ...]
    stays: tuple[str, ...]
    histories: tuple[PlannedHistory, ...] = ()


class Plan(Struct, frozen=True, forbid_unknown_fields=True):
    """A plan: the file, what the registry was then, and the page about both."""

    file: str
    text: str
    serial: int
    moved_at: datetime
    made_at: datetime
    page: Page
    sha256: str
    """Of the text, the page and the serial, in hexadecimal: who edits one makes another plan."""
    format: Literal[1] = FORMAT

    @property
    def expected(self) -> Serial:
        """The serial that the registry must have when the plan is applied."""
        return Serial(self.serial, self.moved_at)

    @property
    def changes_nothing(self) -> bool:
        """Whether everything in the file is recorded already."""
        page = self.page
        sources, versions = page.new_sources or page.histories, page.new or page.reworded
        return not (sources or versions or page.sets or page.rows)


def page_of(
    connection: Connection, known: Catalog, definitions: Definitions, changes: Changes
) -> Page:
    """The page about changes of what is known.

    Raises `DefinitionError` for what can never change of a source.
    """
    records, entities_of = _records(connection), _entities(connection)
    sources = known.sources | {s.name: s for s in definitions.sources}
    kept = (*changes.sources, *changes.reworded_sources)
    return Page(
        new=tuple(_new(known, changes, sources, records)),
        reworded=tuple(
            Reworded(one.ref, tuple(differing(known.features[one.ref], one, COMPARED)))
            for one in changes.reworded
        ),
        unchanged=len(changes.unchanged),
        new_sources=tuple(source.name for source in changes.sources),
        changed_rules=tuple(_changed_rules(known, definitions)),
        sets=tuple(one.ref for one in changes.sets),
        rows=tuple(_rows(known, changes, entities_of)),
        breaks=tuple(_breaks(known, changes)),
        stays=tuple(_stays(known, changes)),
        histories=tuple(histories.planned(known, kept, entities_of)),
    )


def encode(plan: Plan) -> bytes:
    """The JSON of a plan, for a file. Raises `PlanTooLarge` for one that would not be read."""
    made = msgspec.json.format(msgspec.json.encode(plan), indent=1)
    if len(made) > LONGEST_FILE:
        raise PlanTooLarge(len(made), LONGEST_FILE)
    return made


def seal(text: str, page: Page, serial: Serial) -> str:
    """The `sha256` of a plan."""
    made_for = f"{serial.number} {serial.moved_at.astimezone(UTC).isoformat()}"
    sealed = (text.encode(), msgspec.json.encode(page), made_for.encode())
    return hashlib.sha256(b"\0".join(sealed)).hexdigest()


def decode(saved: bytes) -> Plan:
    """The plan of a file. Raises `InvalidPlan`, also for one that was edited."""
    try:
        plan = msgspec.json.decode(saved, type=Plan)
        if plan.sha256 != seal(plan.text, plan.page, plan.expected):
            raise InvalidPlan("it was edited since it was made")
        return plan
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidPlan(str(error)) from None


def made_now() -> datetime:
    """The time of a plan, UTC."""
    return datetime.now(UTC)


def _new(
    known: Catalog,
    changes: Changes,
    sources: Mapping[str, Source],
    records: Mapping[str, int],
) -> Iterator[PlannedVersion]:
    for feature in changes.versions:
        other = _compared(known, feature)
        source = None if feature.source is None else sources[feature.source]
        is_active = changes.activated.get(feature.name) == feature.version
        yield PlannedVersion(
            ref=feature.ref,
            expression=feature.expression,
            of=feature.source or f"({', '.join(feature.entity)})",
            becomes="active" if is_active else "standby",
            parts=feature.parts,
            compared_with=None if other is None else other.ref,
            differs=() if other is None else tuple(differing(other, feature, COMPARED)),
            ticks=None if source is None else lookback(feature.expression, source, feature.ref),
            records=None if source is None else records.get(source.topic, 0),
        )


def _changed_rules(known: Catalog, definitions: Definitions) -> Iterator[str]:
    for source in definitions.sources:
        if source.name in known.sources:
            recorded = SourceRules.of(known, source.name).source
            changed = changed_rules(recorded, source, f"{definitions.file}: source {source.name}")
            if changed:
                yield f"source {source.name}: its {changed}"


def _compared(known: Catalog, feature: FeatureVersion) -> FeatureVersion | None:
    """What a person compares a new version with."""
    if feature.parent is not None:
        parent = known.features.get(f"{feature.name}@{feature.parent}")
        if parent is not None:
            return parent
    lower = [
        one
        for one in versions_of(known, feature.name)
        if numbers(one.version) < numbers(feature.version)
    ]
    return lower[-1] if lower else None


def _rows(known: Catalog, changes: Changes, counts: Mapping[str, int]) -> Iterator[PlannedRow]:
    for source, refs in changes.rows.items():
        writing = known.writing.get(source)
        before = 0 if writing is None else len(known.schemas[writing].features)
        versions = before, len(refs)
        yield PlannedRow(
            source=source,
            versions=versions,
            online_bytes=(
                HEADER.size + FEATURE_BYTES * versions[0],
                HEADER.size + FEATURE_BYTES * versions[1],
            ),
            offline_bytes=STORED_FEATURE_BYTES * (versions[1] - versions[0]),
            entities=counts.get(source, 0),
        )


def _breaks(known: Catalog, changes: Changes) -> Iterator[str]:
    """What somebody who reads today would not find any more, or find otherwise."""
    for one in changes.reworded:
        recorded = known.features[one.ref]
        gone = [alias for alias in recorded.aliases if alias not in one.aliases]
        if gone and state_of(known, one.ref) == "active":
            yield f"requests for {', '.join(gone)} (until now another name of {one.ref}) get 404"
        if recorded.unit and recorded.unit != one.unit:
            yield f"{one.ref} is said to be in `{one.unit}` instead of `{recorded.unit}`"


def _stays(known: Catalog, changes: Changes) -> Iterator[str]:
    """What a person may think to have changed, and has not."""
    for feature in changes.versions:
        active = known.active.get(feature.name)
        if active is None:
            continue
        ref = f"{feature.name}@{active}"
        users = users_of(known, ref)
        pinned = f"; {', '.join(users)} pin {ref} and keep to it" if users else ""
        yield (f"{feature.name} still means {ref} until {feature.ref} is activated{pinned}")
    for source in changes.reworded_sources:
        kept = known.sources[source.name].history
        if source.history > kept:
            yield (
                f"of an entity of {source.name} Redis has the {kept:,} newest ticks at most, and "
                f"keeps {source.history:,} once so many have come: until then a version that needs "
                f"more than {kept:,} is `warming` online, and offline it is not"
            )
    if changes.undeclared:
        shown = ", ".join(changes.undeclared[:10])
        more = len(changes.undeclared) - 10
        yield (
            f"the file does not declare {shown}{f' and {more} more' if more > 0 else ''}: computed "
            "on as they are, until they are deprecated and retired"
        )


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
