"""`tickwell get`"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from tickwell.errors import TickwellError
from tickwell.settings import Settings

COLOURS = {"ok": "green", "stale": "yellow", "lagging": "yellow", "warming": "cyan"}

COLUMNS = ("feature", "value", "status", "version", "age", "event time")


def get(
    entity: Annotated[str, typer.Argument(help="AAPL, a portfolio P1, or a position P1/AAPL.")],
    features: Annotated[
        list[str], typer.Argument(help="Names, as price_sma_5 or price_sma_5@1.0.0.")
    ],
    kind: Annotated[
        str | None,
        typer.Option(help="Key fields of the entity: symbol, portfolio, or portfolio,symbol."),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Repeat once a second.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
    url: Annotated[str | None, typer.Option(help="The server; TICKWELL_URL unless set.")] = None,
) -> None:
    """Print features of an entity: value, status, version, event time, age."""
    from rich.console import Console

    from tickwell.client.http import Client

    client = Client(Settings.of_stack(url=url).url)
    console = Console()
    while True:
        answer = _ask(client, _candidates(entity, kind), features)
        if as_json:
            typer.echo(json.dumps(answer))
        else:
            _print(console, answer)
        if not watch:
            return
        time.sleep(1)


def _candidates(entity: str, kind: str | None) -> list[dict[str, str]]:
    """What an entity's text can mean; the server knows which kind a feature is of."""
    if kind is not None:
        fields = kind.split(",")
        parts = entity.split("/", len(fields) - 1)
        if len(fields) != len(parts):
            raise TickwellError(f"{entity} has {len(parts)} parts and --kind names {len(fields)}")
        return [dict(zip(fields, parts, strict=True))]
    one = [{"symbol": entity}, {"portfolio": entity}]
    portfolio, slash, symbol = entity.partition("/")
    # EUR/USD may be a symbol, P1/EUR/USD a position
    return [{"portfolio": portfolio, "symbol": symbol}, *one] if slash else one


def _ask(client: Any, candidates: Sequence[Mapping[str, str]], features: Sequence[str]) -> Any:
    for candidate in candidates[:-1]:
        try:
            return client.batch(features, [candidate])[0]
        except TickwellError as error:
            if "is a feature of" not in str(error):
                raise
    return client.batch(features, [candidates[-1]])[0]


def _print(console: Any, answer: Mapping[str, Any]) -> None:
    """A table whose cells are whole: where all do not fit, the age stands for the event time."""
    from rich.measure import Measurement

    if not console.is_terminal:  # a program reads it, or a file holds it
        console.width = 1000
    table = _table(answer, COLUMNS)
    if Measurement.get(console, console.options, table).maximum > console.width:
        table = _table(answer, COLUMNS[:-1])
    console.print(table)


def _table(answer: Mapping[str, Any], columns: Sequence[str]) -> Any:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for column in columns:
        right = column in ("value", "age")
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    for name, value in answer["features"].items():
        number, age = value["value"], value["age_seconds"]
        colour = COLOURS.get(value["status"], "red")
        cells = [
            name,
            "—" if number is None else repr(number),
            f"[{colour}]{value['status']}[/]",
            value["version"],
            "—" if age is None else f"{age:.1f}s",
            value["event_time"] or "—",
        ]
        table.add_row(*cells[: len(columns)])
    return table
