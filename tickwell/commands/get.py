"""`tickwell get`"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tickwell.client.entities import candidates

if TYPE_CHECKING:
    from tickwell import Client
    from tickwell.client.values import EntityFeatures

COLOURS = {"ok": "green", "stale": "yellow", "lagging": "yellow", "warming": "cyan"}

COLUMNS = ("feature", "value", "status", "version", "tier", "age", "event time")


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
    """Print features of an entity as the server answers them, with status, tier and age."""
    from rich.console import Console

    from tickwell import Client

    console = Console()
    with Client(url) as client:
        while True:
            answer = _ask(client, candidates(entity, kind), features)
            if as_json:
                typer.echo(json.dumps(answer.as_answer()))
            else:
                _print(console, answer)
            if not watch:
                return
            time.sleep(1)


def _ask(
    client: Client, candidates: Sequence[Mapping[str, str]], features: Sequence[str]
) -> EntityFeatures:
    from tickwell.client.errors import WrongEntity

    for candidate in candidates[:-1]:
        try:
            return client.get_online_features(features, entity=candidate)
        except WrongEntity:
            pass
    return client.get_online_features(features, entity=candidates[-1])


def _print(console: Any, answer: EntityFeatures) -> None:
    """A table whose cells are whole: where all do not fit, the age stands for the event time."""
    from rich.measure import Measurement

    if not console.is_terminal:  # a program reads it, or a file holds it
        console.width = 1000
    table = _table(answer, COLUMNS)
    if Measurement.get(console, console.options, table).maximum > console.width:
        table = _table(answer, COLUMNS[:-1])
    console.print(table)


def _table(answer: EntityFeatures, columns: Sequence[str]) -> Any:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for column in columns:
        right = column in ("value", "age")
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    for name, value in answer.items():
        colour = COLOURS.get(value.status, "red")
        cells = {
            "feature": name,
            "value": "—" if value.value is None else repr(value.value),
            "status": f"[{colour}]{value.status}[/]",
            "version": value.version,
            "tier": value.tier or "—",
            "age": "—" if value.age_seconds is None else f"{value.age_seconds:.1f}s",
            "event time": value.event_time or "—",
        }
        table.add_row(*(cells[column] for column in columns))
    return table
