"""Where a value is in a message, as a features file writes it.

data.p              a field of a field of the tick's object
"a.b".p             a field whose name holds a dot; a quoted name is taken as it is
^s                  with `items`, a field of the message that the array is in
@key                the message key
@timestamp          the record's timestamp
@header.x           the header `x` of the record
"""

from __future__ import annotations

import re
from enum import Enum
from typing import NamedTuple

from registry.errors import DefinitionError

MOST_NAMES = 16
"""Names in a path: objects within each other."""

MOST_CHARACTERS = 500
"""Characters of a path."""

NAME = re.compile(r'"((?:[^"\\]|\\["\\])+)"|([^".@^\\][^".]*)')
ESCAPED = re.compile(r"\\(.)")
PLAIN_NAME = re.compile(r'[^".@^\\][^".]*')
HEADER = "@header."


class Part(Enum):
    """The part of a record that a path begins in; `AROUND` is the message around an item."""

    TICK = ""
    AROUND = "^"
    KEY = "@key"
    TIMESTAMP = "@timestamp"
    HEADER = "@header"


class Path(NamedTuple):
    """The names from the beginning of a part to a value; of a header its name alone."""

    part: Part
    names: tuple[str, ...]

    @property
    def is_json(self) -> bool:
        """Whether the value is one of the message, and not of the record."""
        return self.part in (Part.TICK, Part.AROUND)

    def __str__(self) -> str:
        """The path as a features file writes it."""
        if not self.is_json:
            return ".".join((self.part.value, *self.names))
        return self.part.value + ".".join(map(_written, self.names))


def parse_path(text: str, where: str) -> Path:
    """The path that `text` writes. Raises `DefinitionError`, naming `where`."""
    if text == Part.KEY.value:
        return Path(Part.KEY, ())
    if text == Part.TIMESTAMP.value:
        return Path(Part.TIMESTAMP, ())
    if text.startswith(HEADER) and len(text) > len(HEADER):
        return Path(Part.HEADER, (text.removeprefix(HEADER),))
    if text.startswith("@"):
        raise DefinitionError(
            where,
            f"the path {text!r} names no part of a record: there are @key, @timestamp and "
            "@header.NAME; a field whose own name begins with @ is written in quotes, "
            f"""'"{text}"'""",
        )
    part = Part.AROUND if text.startswith("^") else Part.TICK
    names = _names(text.removeprefix("^"))
    if names is None or len(names) > MOST_NAMES or len(text) > MOST_CHARACTERS:
        raise DefinitionError(
            where,
            f"{text[:80]!r} is no path: write names with dots between them, such as data.price, "
            f"""at most {MOST_NAMES}; a name that holds a dot or begins with @ or ^ in quotes, """
            """'"a.b".price'""",
        )
    return Path(part, names)


def of_name(name: str) -> str:
    """The path of a field of a tick's own object."""
    return _written(name)


def _names(text: str) -> tuple[str, ...] | None:
    names, position = [], 0
    while match := NAME.match(text, position):
        quoted, plain = match.groups()
        names.append(plain if quoted is None else ESCAPED.sub(r"\1", quoted))
        position = match.end()
        if position == len(text):
            return tuple(names)
        if text[position] != ".":
            return None
        position += 1
    return None


def _written(name: str) -> str:
    if PLAIN_NAME.fullmatch(name):
        return name
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
