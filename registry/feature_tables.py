"""One version of a feature, or of a set, in the words of a features file, to its definition.

A version with a `parent` takes from it what it leaves out. So a table says only what is new:

    name = "price_sma_5"
    version = "1.1.0"
    parent = "1.0.0"
    max_age = "10s"
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import msgspec
from msgspec import Struct

from registry.definitions import SET_PREFIX, FeatureSet, FeatureVersion, Source
from registry.durations import duration, max_age_ns
from registry.errors import DefinitionError
from registry.language.program import compile_expression
from registry.naming import (
    check_name,
    check_pin,
    check_readable,
    check_set_version,
    check_unique,
    check_version,
    is_storable,
)

ANY_AGE = "any"
"""The `max_age` of a version that is never stale, though its parent may be."""

MOST_WORDS = 50
"""Number of tags, and of aliases, of a version."""

MOST_IN_SET = 100
"""Number of features in a set, as many as a request may name."""

LONGEST_TEXT = 4_000
"""Characters of a description, an owner, a unit or a tag: each catalog is read whole."""

Table = Mapping[str, Any]
T = TypeVar("T")


class _Feature(Struct, forbid_unknown_fields=True):
    name: str
    version: str
    expression: str
    source: str | None = None
    over: str | None = None
    entity: list[str] = []
    max_age: str | None = None
    description: str = ""
    owner: str = ""
    tags: list[str] = []
    aliases: list[str] = []
    unit: str = ""
    parent: str | None = None
    parts: list[str] = []


class _Set(Struct, forbid_unknown_fields=True):
    name: str
    version: str
    features: list[str]
    description: str = ""
    owner: str = ""


class _Declared(NamedTuple):
    """A version as the file declares it, without what it takes from its parent."""

    ref: str
    table: Table


class Versions:
    """The versions that a file declares, and those that are `recorded`, by `name@version`."""

    def __init__(
        self, tables: list[dict[str, Any]], recorded: Mapping[str, FeatureVersion], file: str
    ) -> None:
        self._recorded = recorded
        self._file = file
        self._whole: dict[str, dict[str, Any]] = {}
        self._declared: dict[str, Table] = {}
        for table in tables:
            self._declared.setdefault(_ref(table), table)

    def whole(self, table: Table) -> Table:
        """A table with what it takes from its ancestors. Raises `DefinitionError`.

        Each version that the file declares is laid over its parent once, however many descend from
        it.
        """
        above = [table]
        found = self._above(table)
        while isinstance(found, _Declared):
            if found.table is table or len(above) > len(self._declared):
                where = f"{self._file}: feature {table.get('name', 'without a name')}"
                raise DefinitionError(
                    where, f"{found.ref} is a parent of itself: begin with another one"
                )
            above.append(found.table)
            found = self._above(found.table)
        whole = dict(found)
        for one in reversed(above):
            whole = _laid_over(whole, one)
            ref = _ref(one)
            if self._declared.get(ref) is one:
                self._whole[ref] = whole
        return whole | {"parent": table.get("parent")}

    def _above(self, table: Table) -> Table | _Declared:
        """What a table's parent says, with all that it takes itself, or its table as declared."""
        parent = table.get("parent")
        if parent is None:
            return {}
        ref = f"{table.get('name', 'without a name')}@{parent}"
        if ref in self._whole:
            return self._whole[ref]
        if ref in self._declared:
            return _Declared(ref, self._declared[ref])
        if ref in self._recorded:
            return table_of(self._recorded[ref])
        raise DefinitionError(
            f"{self._file}: feature {table.get('name', 'without a name')}",
            f"its parent {ref} is neither declared nor recorded: name a version that is",
        )


def _ref(table: Table) -> str:
    return f"{table.get('name')}@{table.get('version')}"


def _laid_over(below: Table, above: Table) -> dict[str, Any]:
    """What a table says over what its parent says: a source and `over` exclude each other."""
    found = {**below, **above}
    if "source" in above:
        found.pop("over", None)
    if "over" in above:
        found.pop("source", None)
    if "expression" in above and "parts" not in above:
        found.pop("parts", None)  # they are those of another expression
    return found


def table_of(feature: FeatureVersion) -> dict[str, Any]:
    """A version as a features file writes it.

    What it has not is left out, unless it would come from a parent.
    """
    given: dict[str, Any] = {
        "name": feature.name,
        "version": feature.version,
        "parent": feature.parent,
        "source": feature.source,
        "over": feature.over,
        "entity": list(feature.entity) if feature.derived else None,
        "expression": feature.expression,
        "parts": list(feature.parts),
        "max_age": None if feature.max_age_ns is None else duration(feature.max_age_ns),
        "unit": feature.unit,
        "aliases": list(feature.aliases),
        "owner": feature.owner,
        "tags": list(feature.tags),
        "description": feature.description,
    }
    if feature.parent is not None:
        inherited = {"max_age": ANY_AGE, "unit": "", "owner": "", "description": ""}
        empty: dict[str, Any] = {**inherited, "tags": [], "aliases": []}
        if feature.derived:
            empty["over"] = ""
        given |= {name: given[name] or nothing for name, nothing in empty.items()}
        return {name: value for name, value in given.items() if value or name in empty}
    return {name: value for name, value in given.items() if value}


def feature_of(table: Table, sources: Mapping[str, Source], file: str) -> FeatureVersion:
    """The version that a whole table declares. Raises `DefinitionError`."""
    given = converted(table, _Feature, f"{file}: feature")
    given.over = given.over or None  # an empty text gives up that of a parent
    where = f"{file}: feature {given.name}"
    for name in (given.name, *given.aliases):
        check_name(name, where)
    check_readable([given.name], where)
    check_version(given.version, where)
    _check_lengths([given.description, given.owner, given.unit, *given.tags], where)
    for what, several in (("tags", given.tags), ("aliases", given.aliases)):
        if len(several) > MOST_WORDS:
            raise DefinitionError(
                where, f"has {len(several)} {what}: at most {MOST_WORDS} are taken"
            )
    for reference in (given.source, given.over):
        if reference is not None and reference not in sources:
            raise DefinitionError(
                where, f"there is no source {reference}; there are {', '.join(sources)}"
            )
    if given.source is not None and given.over is not None:
        raise DefinitionError(
            where, "has both `source` and `over`; a derived feature has no source"
        )
    entity = tuple(given.entity)
    check_unique(given.entity, f"{where}: entity")
    if given.source is not None:
        entity = sources[given.source].key
        if given.entity and tuple(given.entity) != entity:
            raise DefinitionError(where, f"the entity of source {given.source} is {list(entity)}")
        compile_expression(given.expression, sources[given.source], where)
        if given.parts:
            raise DefinitionError(where, "only a derived feature has `parts`; it has a source")
    elif not entity:
        raise DefinitionError(where, "needs a `source`, or as a derived feature its `entity`")
    _check_parts(given.parts, where)
    age = None if given.max_age == ANY_AGE else given.max_age
    return FeatureVersion(
        name=given.name,
        version=given.version,
        entity=entity,
        expression=given.expression.strip(),
        source=given.source,
        over=given.over,
        max_age_ns=max_age_ns(age, where),
        description=given.description,
        owner=given.owner,
        tags=tuple(given.tags),
        aliases=tuple(given.aliases),
        unit=given.unit,
        parent=given.parent,
        parts=tuple(given.parts),
    )


def set_of(table: Table, file: str) -> FeatureSet:
    """The set that a table declares; its features may lack versions. Raises `DefinitionError`."""
    given = converted(table, _Set, f"{file}: set")
    where = f"{file}: {SET_PREFIX}{given.name}"
    check_name(given.name, where)
    check_set_version(given.version, where)
    _check_lengths([given.description, given.owner], where)
    if not 1 <= len(given.features) <= MOST_IN_SET:
        raise DefinitionError(
            where, f"has {len(given.features)} features: it must have 1 to {MOST_IN_SET}"
        )
    for one in given.features:
        if "@" in one:
            check_pin(one, where)
    check_unique([one.partition("@")[0] for one in given.features], where)
    return FeatureSet(
        name=given.name,
        version=given.version,
        features=tuple(given.features),
        description=given.description,
        owner=given.owner,
    )


def _check_lengths(texts: Iterable[str], where: str) -> None:
    for text in texts:
        if len(text) > LONGEST_TEXT:
            raise DefinitionError(
                where, f"a text has {len(text)} characters: at most {LONGEST_TEXT} are taken"
            )


def _check_parts(parts: list[str], where: str) -> None:
    for part in parts:
        check_pin(part, where)
    check_unique([part.partition("@")[0] for part in parts], f"{where}: parts")


def converted(table: Table, kind: type[T], where: str) -> T:
    """A table as one of a kind. Raises `DefinitionError`, naming `where` and its name."""
    where = f"{where} {table.get('name', 'without a name')}"
    for text in _texts(table):
        if not is_storable(text):
            raise DefinitionError(
                where,
                f"{text!r} holds the character NUL, or half of a surrogate pair, which no text in "
                "Postgres can hold",
            )
    try:
        return msgspec.convert(table, kind)
    except (msgspec.ValidationError, OverflowError) as error:
        raise DefinitionError(where, str(error)) from None


def _texts(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case list():
            for item in value:
                yield from _texts(item)
        case dict():
            yield from value
            for item in value.values():
                yield from _texts(item)
