"""What sources, fields, features, versions and topics may be called."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from keyword import iskeyword

from registry.errors import DefinitionError

LONGEST_NAME = 63
"""Characters: Postgres cuts off longer names of views and columns."""

NAME = re.compile(rf"[a-z][a-z0-9_]{{0,{LONGEST_NAME - 1}}}")

TOPIC = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}")
VERSION = re.compile(r"(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})")
ROUTES = frozenset(
    """online offline batch search versions lineage usage audit activate rollback health metrics
    docs openapi""".split()  # noqa: SIM905
)
"""Path segments of the HTTP interface; a feature of that name could not be requested."""

COLUMNS = frozenset(
    "ts event_time sequence known_at partition offset entity op seq".split()  # noqa: SIM905
)
"""Names that every tick or every view has beside the source's own."""

REPAIRED_SUFFIX = "_repaired"
"""What the name of the second view of a source ends with, which shows it after repairs."""

FUNCTIONS = frozenset("abs last log_return mean stddev sum".split())  # noqa: SIM905
"""What expressions call; a feature of that name would read as one."""

SET_VERSION = re.compile(r"[1-9][0-9]{0,5}")


MEANINGLESS = re.compile(r"(?<![0-9])_|_(?![0-9])")
"""What two names must not differ in alone; between digits it tells `ret_1_5` from `ret_15`."""


def folded(name: str) -> str:
    """A name as it is compared with others: two that differ in `_` alone are taken for a typo."""
    return MEANINGLESS.sub("", name)


def is_storable(text: str) -> bool:
    """Whether Postgres can hold a text: without NUL, and without half of a surrogate pair."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def check_not_function(name: str, where: str) -> None:
    """Raises `DefinitionError`, naming `where`, for the name of a function."""
    if name in FUNCTIONS:
        raise DefinitionError(
            where, f"{name!r} is a function of expressions; name the feature otherwise"
        )


def check_pin(text: str, where: str) -> None:
    """Raises `DefinitionError`, naming `where`, for what is not of the form name@1.0.0."""
    name, _, version = text.partition("@")
    if not NAME.fullmatch(name) or not VERSION.fullmatch(version):
        raise DefinitionError(where, f"{text!r} is not of the form price_sma_5@1.0.0")


def check_set_version(version: str, where: str) -> None:
    """Raises `DefinitionError`, naming `where`, for what is not the version of a set."""
    if not SET_VERSION.fullmatch(version):
        raise DefinitionError(where, f"version {version!r} of a set is not a number such as 1")


def check_name(name: str, where: str) -> None:
    """Raises `DefinitionError`, naming `where`, for what cannot name anything."""
    if not NAME.fullmatch(name) or name in ROUTES or name in COLUMNS:
        raise DefinitionError(
            where,
            f"{name!r} cannot be a name: use a-z, 0-9 and _, begin with a letter, at most 63, and "
            "none of " + ", ".join(sorted(ROUTES | COLUMNS)),
        )


def check_source_name(name: str, where: str) -> None:
    """Raises `DefinitionError`, naming `where`, for what cannot name a source."""
    check_name(name, where)
    if name.endswith(REPAIRED_SUFFIX):
        raise DefinitionError(
            where, f"{name!r} ends as the views of repaired sources do: choose another name"
        )


def check_readable(names: Iterable[str], where: str) -> None:
    """Raises `DefinitionError`, naming `where`, for what cannot be a name in an expression."""
    for name in names:
        if iskeyword(name):
            raise DefinitionError(
                where,
                f"{name!r} cannot be read in an expression, where it is a keyword; choose another "
                f"name, such as {name}_",
            )


def check_topic(topic: str, where: str) -> None:
    """Raises `DefinitionError`, naming `where`, for what Kafka does not take as a topic's name."""
    if not TOPIC.fullmatch(topic):
        raise DefinitionError(
            where,
            f"{topic!r} cannot be a topic's name: Kafka takes 1 to 249 of a-z, A-Z, 0-9, "
            "'.', '_' and '-'",
        )


def check_version(version: str, where: str) -> None:
    """Raises `DefinitionError`, naming `where`, for what is not a version."""
    if not VERSION.fullmatch(version):
        raise DefinitionError(where, f"version {version!r} is not of the form 1.0.0")


def check_unique(names: Sequence[str], where: str) -> None:
    """Raises `DefinitionError`, naming `where`, for names that appear more than once."""
    repeated = sorted(name for name, times in Counter(names).items() if times > 1)
    if repeated:
        raise DefinitionError(where, f"{', '.join(repeated)} is declared twice")
