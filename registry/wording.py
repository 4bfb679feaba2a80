"""Definitions in the words of a features file, for people who are told what differs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from registry.definitions import Condition, Field, Place, Source
from registry.durations import duration

NOTHING = "nothing"
"""What stands for a setting that is left out and has no default."""


def differences(
    recorded: Any, declared: Any, names: Iterable[str], verb: str = "would become"
) -> str:
    """How two definitions of a kind differ in the attributes `names`; an empty text for not at all.

    Two that a file can write in other words or in another order do not differ.
    """
    return " and ".join(
        f"{setting} `{was}` {verb} `{now}`"
        for setting, was, now in differing(recorded, declared, names)
    )


class Differing(NamedTuple):
    """A setting that two definitions have otherwise, in the words of a features file."""

    setting: str
    was: str
    now: str


def differing(recorded: Any, declared: Any, names: Iterable[str]) -> list[Differing]:
    """The settings in which two definitions of a kind differ, of the attributes `names`."""
    names = tuple(names)
    was, now = dict(_settings(recorded, names)), dict(_settings(declared, names))
    return [
        Differing(setting, was[setting], now[setting])
        for setting in was
        if setting in now and was[setting] != now[setting]
    ]


def _settings(definition: Any, names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The name and the text of each setting that the attributes are written as."""
    for name in names:
        value = getattr(definition, name)
        if isinstance(definition, Source) and name == "places":
            for place in definition.places_by_name.values():
                yield f"map.{place.name}", _place(place)
        elif name in ("skew_ns", "max_age_ns"):
            yield name.removesuffix("_ns"), NOTHING if value is None else duration(value)
        elif name == "earliest_ns":
            yield "earliest", _time(value)
        elif name == "where":
            yield "where", _conditions(value)
        elif name == "fields":
            yield "fields", _array(map(_field, value))
        else:
            yield name, _value(value)


def _value(value: Any) -> str:
    if value is None:
        return NOTHING
    return value if isinstance(value, str) else _quoted(value)


def _quoted(value: Any) -> str:
    """A constant or an array of them as TOML has it, which JSON writes alike."""
    return json.dumps(value, ensure_ascii=False)


def _table(**entries: str | None) -> str:
    """An inline table of texts; `None` is what is left out."""
    given = ", ".join(f"{name} = {text}" for name, text in entries.items() if text is not None)
    return f"{{ {given} }}"


def _field(field: Field) -> str:
    return _table(
        name=_quoted(field.name),
        optional="true" if field.optional else None,
        default=None if field.default is None else _quoted(field.default),
    )


def _place(place: Place) -> str:
    if place.path is None:
        return _table(value=_quoted(place.value))
    if not place.scale and not place.digits:
        return place.path
    return _table(
        path=_quoted(place.path),
        scale=f"1e{place.scale}" if place.scale else None,
        digits="true" if place.digits else None,
    )


def _conditions(conditions: Sequence[Condition]) -> str:
    if not conditions:
        return NOTHING
    return f"{{ {', '.join(sorted(map(_condition, conditions)))} }}"


def _condition(condition: Condition) -> str:
    values = sorted(map(_quoted, condition.values))
    return f"{_quoted(condition.path)} = {values[0] if len(values) == 1 else _array(values)}"


def _array(values: Iterable[str]) -> str:
    return f"[{', '.join(values)}]"


def _time(nanoseconds: int) -> str:
    seconds, rest = divmod(nanoseconds, 10**9)
    moment = datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1_000, tzinfo=None)
    return moment.isoformat().removesuffix("T00:00:00")
