"""How a source's messages look, as a features file declares it: `map`, `items`, `where`.

[source.map]
symbol = "data.s"                                 a path, see `registry.paths`
price = { path = "data.p", scale = 1e-9 }         an integer, times a power of ten
ts = { path = "data.T", digits = true }           an integer, in quotes or without
multiplier = { value = 100 }                      a constant
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import combinations

from msgspec import Struct

from registry.definitions import Condition, Field, Place
from registry.errors import DefinitionError
from registry.paths import Part, Path, of_name, parse_path

MOST_SCALE = 22
"""The exponent of the smallest and the largest scale: powers of ten up to there are doubles."""

MOST_KEY_BYTES = 255
MOST_CONDITIONS = 16
MOST_VALUES = 64
"""Values of a condition."""

Value = bool | int | str


class GivenPlace(Struct, forbid_unknown_fields=True):
    """The value of a name in the table `map`, where it is more than a path."""

    path: str | None = None
    value: str | int | float | None = None
    scale: float | None = None
    digits: bool = False


class Shape(Struct, frozen=True):
    """What a features file says of a source's messages."""

    key: Sequence[str]
    fields: Sequence[Field]
    positive: bool
    map: Mapping[str, str | GivenPlace]
    items: str | None
    where: Mapping[str, Value | list[Value]]


def places_of(shape: Shape, where: str) -> tuple[Place, ...]:
    """The places that a source declares and that say more than the names do, in their order.

    However a file writes the same, it is the same here: a recorded source is compared with it.
    Raises `DefinitionError`, naming `where`, for what makes no sense.
    """
    names = (*shape.key, *(field.name for field in shape.fields), "ts", "seq", "op")
    places = {}
    for name, given in shape.map.items():
        if name not in names:
            raise DefinitionError(
                where, f"map has {name}, and its ticks have {', '.join(names)}: map one of these"
            )
        place = GivenPlace(path=given) if isinstance(given, str) else given
        places[name] = _place(name, place, shape, f"{where}: map: {name}")
    ordered = (places[name] for name in names if name in places)
    return tuple(place for place in ordered if place != Place(place.name, of_name(place.name)))


def items_of(shape: Shape, where: str) -> str | None:
    """The path of the array that holds the ticks. Raises `DefinitionError`, naming `where`."""
    return None if shape.items is None else str(parse_path(shape.items, where))


def conditions_of(shape: Shape, where: str) -> tuple[Condition, ...]:
    """The conditions of a source and their values, each once and in an order of their own.

    Raises `DefinitionError`, naming `where`.
    """
    if len(shape.where) > MOST_CONDITIONS:
        raise DefinitionError(where, f"where has {len(shape.where)} paths: at most 16 are taken")
    conditions = []
    for path, given in shape.where.items():
        values = given if isinstance(given, list) else [given]
        if not 1 <= len(values) <= MOST_VALUES:
            raise DefinitionError(
                where,
                f"where: {path} has {len(values)} values, and no message can have one of none: "
                f"give 1 to {MOST_VALUES}",
            )
        if any(isinstance(value, int) and abs(value) >= 2**63 for value in values):
            raise DefinitionError(where, f"where: {path} has an integer of more than 64 bits")
        parsed = parse_path(path, where)
        if parsed.part is Part.TIMESTAMP:
            raise DefinitionError(where, "where: @timestamp is a time, and has no value to be")
        if not parsed.is_json and not all(isinstance(value, str) for value in values):
            raise DefinitionError(where, f"where: {path} is text, so its values must be in quotes")
        once = {Condition(str(parsed), (value,)) for value in values}
        ordered = sorted(once, key=lambda condition: condition.identity)
        conditions.append(Condition(str(parsed), tuple(one.values[0] for one in ordered)))
    return tuple(sorted(conditions, key=lambda condition: condition.identity))


def check_paths(
    paths: Mapping[str, Path], conditions: Sequence[Condition], items: str | None, where: str
) -> None:
    """Check that the paths of a source can be in one message.

    Raises `DefinitionError`, naming `where`.
    """
    array = None if items is None else parse_path(items, where)
    if array is not None and array.part is not Part.TICK:
        raise DefinitionError(where, f"items = {items!r} must name a field of the message")
    read = [*paths.values(), *(parse_path(condition.path, where) for condition in conditions)]
    if array is None and any(path.part is Part.AROUND for path in read):
        raise DefinitionError(
            where,
            "a path that begins with ^ leads to the message around an item, and without `items` "
            "the message is the tick: leave the ^ out",
        )
    if array is not None:
        read.append(Path(Part.AROUND, array.names))
    for one, other in combinations(dict.fromkeys(read), 2):
        if (one.is_json and _is_prefix(one, other)) or _is_prefix(other, one):
            shorter, longer = sorted((one, other), key=lambda path: len(path.names))
            raise DefinitionError(
                where,
                f"{shorter} is read as a value, and {longer} leads through it: a field is either "
                "a value or an object",
            )


def _is_prefix(one: Path, other: Path) -> bool:
    return one.part is other.part and other.names[: len(one.names)] == one.names


def _place(name: str, given: GivenPlace, shape: Shape, where: str) -> Place:
    if (given.path is None) == (given.value is None):
        raise DefinitionError(where, "give either a `path` or a `value`")
    numeric = {field.name: field for field in shape.fields}
    exponent = 0
    if given.scale is not None:
        if name not in numeric or given.path is None:
            raise DefinitionError(where, "only a number that a message has can have a `scale`")
        exponent = _exponent(given.scale, where)
    if given.digits and (name != "ts" or given.path is None):
        raise DefinitionError(where, "`digits` says how `ts` is written, and nothing else")
    if given.value is not None:
        return Place(name, value=_constant(name, given.value, shape, where))
    assert given.path is not None, "checked above"
    path = parse_path(given.path, where)
    for problem in _misplaced(name, path, shape.key):
        raise DefinitionError(where, f"{path} {problem}")
    return Place(name, str(path), scale=exponent, digits=given.digits)


def _misplaced(name: str, path: Path, key: Sequence[str]) -> Iterator[str]:
    if path.part is Part.TIMESTAMP and name != "ts":
        yield "is the time of a record, which only `ts` can be"
    if path.part is Part.KEY and name not in key:
        yield f"is the text of a key, which only a key field can be: {', '.join(key)}"


def _exponent(scale: float, where: str) -> int:
    """The power of ten that a scale is."""
    exact = Decimal(repr(scale)) if math.isfinite(scale) and scale > 0 else Decimal(0)
    exponent = exact.adjusted() if exact else 0
    if exact != Decimal(10) ** exponent or not 1 <= abs(exponent) <= MOST_SCALE:
        raise DefinitionError(
            where,
            f"scale {scale:g} must be a power of ten, such as 1e-9, and not 1, from "
            f"1e-{MOST_SCALE} to 1e{MOST_SCALE}",
        )
    return exponent


def _constant(name: str, value: str | int | float, shape: Shape, where: str) -> str | float:
    if name in shape.key:
        if not isinstance(value, str) or not _is_key(value):
            raise DefinitionError(
                where,
                f"{value!r} cannot be a key: it must be text of 1 to {MOST_KEY_BYTES} bytes "
                "without a control character",
            )
        return value
    for field in shape.fields:
        if field.name == name:
            return _number(value, field, shape.positive, where)
    if name == "op" and value == "trade":
        return "trade"
    raise DefinitionError(
        where,
        f"{name} cannot be the constant {value!r}; it may be read from a path"
        + (', or be always "trade"' if name == "op" else ""),
    )


def _number(value: str | int | float, field: Field, positive: bool, where: str) -> float:
    try:
        number = math.nan if isinstance(value, str) else float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or (positive and number <= 0):
        kind = "a positive" if positive else "a finite"
        raise DefinitionError(where, f"the constant {value!r} must be {kind} number")
    if field.optional or field.default is not None:
        raise DefinitionError(
            where, "a constant is never absent: leave out `optional` and `default`"
        )
    return number


def _is_key(text: str) -> bool:
    return 0 < len(text.encode()) <= MOST_KEY_BYTES and min(text) >= " "
