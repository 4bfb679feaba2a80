"""Which sources there are and what is computed of their ticks, as it is recorded in Postgres."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from tests.checker.findings import NotCheckable
from tests.oracle.features import Feature
from tests.oracle.messages import Place, Record, SourceSpec
from tests.oracle.times import YEAR_1971_NS

EXPRESSIONS = {
    "last": re.compile(r"last\(\s*(\w+)\s*\)()"),
    "mean": re.compile(r"mean\(\s*(\w+)\s*,\s*(\d+)\s*\)"),
    "volatility": re.compile(r"stddev\(\s*log_return\(\s*(\w+)\s*\)\s*,\s*(\d+)\s*\)"),
}
NAMES = re.compile(r'"((?:[^"\\]|\\.)+)"|([^".]+)')
"""The names of a path, in quotes or plain."""


@dataclass(frozen=True)
class Declared:
    """What a source was declared to be, None where only an earlier build knows.

    `begins` has the first offset for which that counts, by topic id and partition; the first
    declaration has none, and counts from the beginning.
    """

    spec: SourceSpec | None
    begins: Mapping[tuple[bytes, int], int]


@dataclass(frozen=True)
class Source:
    """A source, and by row schema id the features (`Feature.name` is `name@version`) of its rows.

    `declared` are in the order in which they were recorded, `spec` is the last one. `max_age_ns` is
    by `name@version`. Of an entity `history` ticks are kept in Redis.
    """

    spec: SourceSpec
    declared: Sequence[Declared]
    schemas: Mapping[int, tuple[Feature, ...]]
    max_age_ns: Mapping[str, int | None]
    history: int

    @property
    def name(self) -> str:
        return self.spec.name

    def has(self, ref: str) -> bool:
        """Whether rows of any row schema hold a version, `name@version`."""
        return any(one.name == ref for features in self.schemas.values() for one in features)

    @property
    def depth(self) -> int:
        """Ticks of an entity that the longest window needs."""
        return max((f.depth for features in self.schemas.values() for f in features), default=1)

    def spec_at(self, topic_id: bytes, partitions: int) -> Callable[[Record], SourceSpec]:
        """Says what the source was declared to be where a record of a topic stands."""
        specs = [each.spec and replace(each.spec, partitions=partitions) for each in self.declared]

        def spec(record: Record) -> SourceSpec:
            found, where = specs[-1], (topic_id, record.partition)
            begun = [n for n, each in enumerate(self.declared) if where in each.begins]
            if begun:
                found = specs[begun[0] - 1]
            for number in begun:
                if self.declared[number].begins[where] <= record.offset:
                    found = specs[number]
            if found is None:
                raise NotCheckable(
                    f"{record.topic}[{record.partition}] offset {record.offset} was decided by an "
                    "earlier build"
                )
            return found

        return spec


def read_sources(connection: Any, topics: Mapping[str, str]) -> list[Source]:
    """The sources that are written; `topics` by source's name go before the recorded ones.

    Raises `NotCheckable` for an expression, and for a format, that is not known here.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT name, definition FROM tickwell.sources ORDER BY name")
        definitions = dict(cursor.fetchall())
        cursor.execute("SELECT id, source, definition FROM tickwell.source_rules ORDER BY id")
        recorded = cursor.fetchall()
        cursor.execute(
            "SELECT rules_id, topic_id, partition, from_offset FROM tickwell.rules_starts"
        )
        begins = cursor.fetchall()
        cursor.execute("SELECT definition FROM tickwell.feature_versions")
        versions = {f"{d['name']}@{d['version']}": d for (d,) in cursor.fetchall()}
        cursor.execute("SELECT id, source, features FROM tickwell.row_schemas ORDER BY id")
        schemas = cursor.fetchall()
    unknown = topics.keys() - definitions.keys()
    if unknown:
        raise NotCheckable(
            f"--topic names the source {', '.join(sorted(unknown))}; "
            f"recorded are {', '.join(definitions)}"
        )
    found = []
    for name, definition in definitions.items():
        topic = topics.get(name, definition["topic"])
        spec = spec_of(definition, topic)
        declared = [
            Declared(
                spec_of(given, topic) if "partitioner" in given else None,
                {
                    (UUID(topic_id).bytes, partition): offset
                    for rules, topic_id, partition, offset in begins
                    if rules == number
                },
            )
            for number, source, given in recorded
            if source == name
        ]
        places = {field: place for place, (field, _, _) in enumerate(spec.fields)}
        own = {
            number: tuple(_feature(ref, versions[ref]["expression"], places) for ref in refs)
            for number, source, refs in schemas
            if source == name
        }
        ages = {f.name: versions[f.name].get("max_age_ns") for fs in own.values() for f in fs}
        if own and definition.get("format", "json") != "json":
            raise NotCheckable(f"{name} is in {definition['format']}, and only JSON is read here")
        if own:
            found.append(Source(spec, declared, own, ages, definition.get("history", 1_024)))
    if not found:
        raise NotCheckable("no row schema is recorded in this database: has it been migrated?")
    return found


def spec_of(definition: Mapping[str, Any], topic: str) -> SourceSpec:
    """A source as it is recorded, but for its topic."""
    fields = []
    for given in definition["fields"]:
        default = given.get("default")
        fields.append((given["name"], not given.get("optional") and default is None, default))
    places = {
        place["name"]: replace(
            Place(constant=place["value"]) if place.get("path") is None else _place(place["path"]),
            scale=place.get("scale", 0),
            digits=place.get("digits", False),
        )
        for place in definition.get("places", ())
    }
    items = definition.get("items")
    return SourceSpec(
        name=definition["name"],
        topic=topic,
        key=tuple(definition["key"]),
        fields=tuple(fields),
        ts_unit=definition.get("ts_unit", "ms"),
        skew_ns=definition.get("skew_ns", 10**9),
        positive=definition.get("positive", False),
        places=places,
        items=None if items is None else _place(items).names,
        where=tuple(
            (_place(condition["path"]), tuple(condition["values"]))
            for condition in definition.get("where", ())
        ),
        any_message_key=definition.get("message_key") == "any",
        partitioner=definition.get("partitioner", "murmur2"),
        earliest_ns=definition.get("earliest_ns", YEAR_1971_NS),
    )


def _place(path: str) -> Place:
    """What a path as a features file writes it means."""
    if path.startswith("@"):
        part, _, name = path[1:].partition(".")
        return Place(part, (name,))
    part, text = ("around", path[1:]) if path.startswith("^") else ("tick", path)
    names = [
        quoted.replace('\\"', '"').replace("\\\\", "\\") or plain
        for quoted, plain in NAMES.findall(text)
    ]
    return Place(part, tuple(names))


def _feature(ref: str, expression: str, places: Mapping[str, int]) -> Feature:
    for function, pattern in EXPRESSIONS.items():
        match = pattern.fullmatch(expression.strip())
        if match and match[1] in places:
            return Feature(ref, function, places[match[1]], int(match[2] or 1))
    raise NotCheckable(f"{ref} is `{expression}`, which this checker does not know: teach it there")
