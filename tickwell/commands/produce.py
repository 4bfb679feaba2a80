"""`tickwell produce`"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tickwell.errors import TickwellError

if TYPE_CHECKING:
    from decimal import Decimal

FILES, ROWS, SENDING = "What the files are", "Which rows, in which order", "Sending"


def produce(
    files: Annotated[
        list[str],
        typer.Argument(
            help="CSV of any delimiter, also in gzip, zstd, bzip2 or zip, and Parquet: files, "
            "folders or patterns.",
            show_default=False,
        ),
    ],
    source: Annotated[str, typer.Option(help="What the rows are: price, volume, position …")],
    column: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            help="FIELD=COLUMN where they differ: price=close, by number ts=#1, ts=Date+Time.",
            rich_help_panel=FILES,
        ),
    ] = None,
    constant: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="FIELD=VALUE for what has no column, as symbol=GOOG.",
            rich_help_panel=FILES,
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            help="Names of the columns, as ts,price,size; the file has none then.",
            rich_help_panel=FILES,
        ),
    ] = None,
    header: Annotated[
        bool | None,
        typer.Option(
            "--header/--no-header",
            help="Whether the first row has the names of the columns.",
            show_default=False,
            rich_help_panel=FILES,
        ),
    ] = None,
    delimiter: Annotated[
        str | None,
        typer.Option(help="One character, or tab; found out unless set.", rich_help_panel=FILES),
    ] = None,
    ts_unit: Annotated[
        str | None,
        typer.Option(
            help="What integer times count: s, ms, us, ns since 1970, or yyyymmdd.",
            rich_help_panel=FILES,
        ),
    ] = None,
    ts_format: Annotated[
        str | None,
        typer.Option(
            help="How times are written, as '%d.%m.%Y %H:%M:%S.%f' (Python's strptime).",
            rich_help_panel=FILES,
        ),
    ] = None,
    tz: Annotated[
        str | None,
        typer.Option(
            help="Time zone of times without one, as Europe/Berlin; UTC unless set.",
            rich_help_panel=FILES,
        ),
    ] = None,
    scale: Annotated[
        list[str] | None,
        typer.Option(help="FIELD=FACTOR of integers, as price=1e-9.", rich_help_panel=FILES),
    ] = None,
    skip_empty: Annotated[
        bool,
        typer.Option(
            "--skip-empty",
            help="Pass over rows that lack a value, and count them.",
            rich_help_panel=ROWS,
        ),
    ] = False,
    reject: Annotated[
        Path | None,
        typer.Option(
            help="Send the good rows, and write the others to this CSV.",
            dir_okay=False,
            rich_help_panel=ROWS,
        ),
    ] = None,
    sort: Annotated[
        bool,
        typer.Option(
            "--sort", help="Send in the order of time; sorts on disk.", rich_help_panel=ROWS
        ),
    ] = False,
    allow_late: Annotated[
        bool,
        typer.Option(
            "--allow-late",
            help="Send rows that will be rejected as late, too.",
            rich_help_panel=ROWS,
        ),
    ] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Send no more than this.", rich_help_panel=ROWS)
    ] = None,
    as_if_now: Annotated[
        bool,
        typer.Option(
            "--as-if-now",
            help="Give each tick the moment it is sent as its time.",
            rich_help_panel=SENDING,
        ),
    ] = False,
    rate: Annotated[
        float | None,
        typer.Option(min=0.001, help="Ticks a second at most.", rich_help_panel=SENDING),
    ] = None,
    no_confirm: Annotated[
        bool,
        typer.Option(
            "--no-confirm",
            help="Do not wait until the workers have taken the ticks.",
            rich_help_panel=SENDING,
        ),
    ] = False,
    patience: Annotated[
        float,
        typer.Option(
            min=1, help="Seconds without progress to wait for workers.", rich_help_panel=SENDING
        ),
    ] = 60,
) -> None:
    """Send the rows of files as ticks, once all of them are known to be good.

    All rows are checked before the first is sent, as a worker would check them. Keys are sent as
    they are written, numbers with every digit; an empty cell is a field left out.

    Exit codes: 0 all ticks are accepted; 1 nothing was sent, or not all of it; 3 workers rejected
    some; 4 no worker takes them (--patience without progress); 130 stopped.
    """
    from pipelines.produce.options import FileOptions
    from tickwell.production import Production, Wanted

    if sort and as_if_now:
        raise TickwellError("--sort: with --as-if-now rows have no times to sort by")
    options = FileOptions(
        columns=_pairs("--map", column, "price=close"),
        constants=_pairs("--set", constant, "symbol=GOOG"),
        header=header,
        names=[name.strip() for name in columns.split(",")] if columns else (),
        delimiter=_delimiter(delimiter),
        ts_unit=_unit(ts_unit),
        ts_format=ts_format,
        tz=tz,
        scales=_scales(scale),
        skip_empty=skip_empty,
        as_if_now=as_if_now,
        keep_rows=reject is not None,
    )
    wanted = Wanted(reject, sort, allow_late, limit, rate, not no_confirm, patience)
    Production(files, source, options, wanted).run()


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
