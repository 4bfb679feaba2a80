"""What a source says of its messages, prepared for reading them one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from registry.definitions import Condition, Place, Source
from registry.paths import Part, Path, parse_path

MISSING: Final = object()
"""Instead of a value that a message does not have."""


def at(value: Any, names: Sequence[str]) -> Any:
    """The value at the end of a path, `MISSING` where it does not lead through objects to one."""
    for name in names:
        if not isinstance(value, dict) or name not in value:
            return MISSING
        value = value[name]
    return value


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A condition: the values that are wanted, by type and value, since `True` equals 1."""

    path: Path
    values: frozenset[tuple[type, bool | int | str]]

    @classmethod
    def of(cls, condition: Condition, where: str) -> _Wanted:
        values = frozenset((type(value), value) for value in condition.values)
        return cls(parse_path(condition.path, where), values)

    def holds(self, value: Any) -> bool:
        return isinstance(value, (bool, int, str)) and (type(value), value) in self.values


@dataclass(frozen=True, slots=True)
class Reading:
    """A source with its paths parsed, once for all of its messages."""

    source: Source
    places: Mapping[str, Place]
    """By name, in the order of `Source.tick_names`."""
    paths: Mapping[str, Path]
    """By name; a constant has none."""
    items: tuple[str, ...] | None
    on_message: tuple[_Wanted, ...]
    """Conditions on what is the same for all elements of `items`."""
    on_tick: tuple[_Wanted, ...]

    @classmethod
    def of(cls, source: Source) -> Reading:
        where = f"source {source.name}"
        paths = source.paths
        wanted = [_Wanted.of(condition, where) for condition in source.where]
        has_items = source.items is not None

        def is_of_message(condition: _Wanted) -> bool:
            return has_items and condition.path.part is not Part.TICK

        return cls(
            source=source,
            places=source.places_by_name,
            paths=paths,
            items=None if source.items is None else parse_path(source.items, where).names,
            on_message=tuple(filter(is_of_message, wanted)),
            on_tick=tuple(each for each in wanted if not is_of_message(each)),
        )

    @property
    def shown_items(self) -> str:
        return str(self.source.items)

    @property
    def needs_headers(self) -> bool:
        """Whether anything is read from the headers of a record."""
        conditions = [each.path for each in (*self.on_message, *self.on_tick)]
        return any(path.part is Part.HEADER for path in (*self.paths.values(), *conditions))

    def holds_around(self, around: Any, key: bytes | None, headers: Mapping[str, bytes]) -> bool:
        """Whether the conditions hold that are the same for all elements of `items`."""
        return all(
            each.holds(value_at(each.path, None, around, key, headers)) for each in self.on_message
        )

    def holds(self, tick: Any, key: bytes | None, headers: Mapping[str, bytes]) -> bool:
        """Whether the conditions on a tick hold."""
        return all(
            each.holds(value_at(each.path, tick, None, key, headers)) for each in self.on_tick
        )

    def values(
        self, tick: Any, around: Any, key: bytes | None, headers: Mapping[str, bytes]
    ) -> Iterator[tuple[str, Any]]:
        """The value of each name that a tick has; that of `@timestamp` is left out."""
        for name, place in self.places.items():
            path = self.paths.get(name)
            if path is None:
                yield name, place.value
            elif path.part is not Part.TIMESTAMP:
                value = value_at(path, tick, around, key, headers)
                if value is not MISSING:
                    yield name, value


def value_at(
    path: Path, tick: Any, around: Any, key: bytes | None, headers: Mapping[str, bytes]
) -> Any:
    """The value at a path; text that is not UTF-8 stays bytes, which are no value of any type."""
    match path.part:
        case Part.TICK:
            return at(tick, path.names)
        case Part.AROUND:
            return at(around, path.names)
        case Part.KEY:
            return _text(key)
        case _:
            return _text(headers.get(path.names[0]))


def _text(value: bytes | None) -> Any:
    if value is None:
        return MISSING
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value
