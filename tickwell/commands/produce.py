"""`tickwell produce`"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from tickwell import file_flags
from tickwell.errors import TickwellError
from tickwell.file_flags import ROWS

SENDING = "Sending"


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
    column: file_flags.Map = None,
    constant: file_flags.Set = None,
    columns: file_flags.Columns = None,
    header: file_flags.Header = None,
    delimiter: file_flags.Delimiter = None,
    ts_unit: file_flags.TsUnit = None,
    ts_format: file_flags.TsFormat = None,
    tz: file_flags.Zone = None,
    scale: file_flags.Scale = None,
    skip_empty: file_flags.SkipEmpty = False,
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
    from tickwell.production import Production, Wanted

    options = file_flags.file_options(locals())
    if sort and as_if_now:
        raise TickwellError("--sort: with --as-if-now rows have no times to sort by")
    options = replace(options, as_if_now=as_if_now, keep_rows=reject is not None)
    wanted = Wanted(reject, sort, allow_late, limit, rate, not no_confirm, patience)
    Production(files, source, options, wanted).run()
