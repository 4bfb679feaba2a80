"""Flags that say how the rows of files are to be read, the same for `produce` and `replay`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tickwell.errors import TickwellError

if TYPE_CHECKING:
    from decimal import Decimal

    from pipelines.produce.options import FileOptions

FILES, ROWS = "What the files are", "Which rows, in which order"

Map = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        help="FIELD=COLUMN where they differ: price=close, by number ts=#1, ts=Date+Time.",
        rich_help_panel=FILES,
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="FIELD=VALUE for what has no column, as symbol=GOOG.",
        rich_help_panel=FILES,
    ),
]
Columns = Annotated[
    str | None,
    typer.Option(
        help="Names of the columns, as ts,price,size; the file has none then.",
        rich_help_panel=FILES,
    ),
]
Header = Annotated[
    bool | None,
    typer.Option(
        "--header/--no-header",
        help="Whether the first row has the names of the columns.",
        show_default=False,
        rich_help_panel=FILES,
    ),
]
Delimiter = Annotated[
    str | None,
    typer.Option(help="One character, or tab; found out unless set.", rich_help_panel=FILES),
]
TsUnit = Annotated[
    str | None,
    typer.Option(
        help="What integer times count: s, ms, us, ns since 1970, or yyyymmdd.",
        rich_help_panel=FILES,
    ),
]
TsFormat = Annotated[
    str | None,
    typer.Option(
        help="How times are written, as '%d.%m.%Y %H:%M:%S.%f' (Python's strptime).",
        rich_help_panel=FILES,
    ),
]
Zone = Annotated[
    str | None,
    typer.Option(
        help="Time zone of times without one, as Europe/Berlin; UTC unless set.",
        rich_help_panel=FILES,
    ),
]
Scale = Annotated[
    list[str] | None,
    typer.Option(help="FIELD=FACTOR of integers, as price=1e-9.", rich_help_panel=FILES),
]
SkipEmpty = Annotated[
    bool,
    typer.Option(
        "--skip-empty",
        help="Pass over rows that lack a value, and count them.",
        rich_help_panel=ROWS,
    ),
]


def file_options(given: dict[str, Any]) -> FileOptions:
    """What the flags say, by the names of the parameters of a command.

    Raises `TickwellError` for what cannot be meant.
    """
    from pipelines.produce.options import FileOptions

    names = given["columns"]
    return FileOptions(
        columns=_pairs("--map", given["column"], "price=close"),
        constants=_pairs("--set", given["constant"], "symbol=GOOG"),
        header=given["header"],
        names=[name.strip() for name in names.split(",")] if names else (),
        delimiter=_delimiter(given["delimiter"]),
        ts_unit=_unit(given["ts_unit"]),
        ts_format=given["ts_format"],
        tz=given["tz"],
        scales=_scales(given["scale"]),
        skip_empty=given["skip_empty"],
    )


def _pairs(flag: str, pairs: Sequence[str] | None, example: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in pairs or ():
        field, equals, value = pair.partition("=")
        if not (field and equals and value):
            raise TickwellError(f"{flag} {pair}: write it as {example}")
        if field in found:
            raise TickwellError(f"{flag} {pair}: {field} is given already, as {found[field]}")
        found[field] = value
    return found


def _scales(pairs: Sequence[str] | None) -> dict[str, Decimal]:
    from decimal import Decimal, InvalidOperation

    found = {}
    for field, value in _pairs("--scale", pairs, "price=1e-9").items():
        try:
            found[field] = Decimal(value)
        except InvalidOperation:
            raise TickwellError(f"--scale {field}={value}: {value!r} is not a number") from None
        if not (found[field].is_finite() and found[field] > 0):
            raise TickwellError(f"--scale {field}={value}: a scale is a number above zero")
    return found


def _delimiter(given: str | None) -> str | None:
    found = {"tab": "\t", "\\t": "\t"}.get(given or "", given)
    if found is not None and (len(found) != 1 or not found.isascii() or found in '"\r\n'):
        raise TickwellError(f"--delimiter {given}: it is one character, or tab")
    return found


def _unit(given: str | None) -> Any:
    from pipelines.produce.options import FILE_UNITS

    if given is not None and given not in FILE_UNITS:
        raise TickwellError(f"--ts-unit {given}: there are {', '.join(FILE_UNITS)}")
    return given
