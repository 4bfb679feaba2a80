"""`tickwell produce`"""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from tickwell.errors import TickwellError
from tickwell.settings import Settings


def produce(
    file: Annotated[Path, typer.Argument(help="A CSV or Parquet file.", exists=True)],
    source: Annotated[str, typer.Option(help="What the rows are: price, volume, position …")],
    column: Annotated[
        list[str] | None,
        typer.Option("--map", help="FIELD=COLUMN where they differ, as price=close."),
    ] = None,
    rate: Annotated[float | None, typer.Option(min=0.001, help="Ticks a second at most.")] = None,
    as_if_now: Annotated[
        bool, typer.Option(help="Give each tick the moment it is sent as its time.")
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Send no more than this.")] = None,
) -> None:
    """Send the rows of a file as ticks."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from pipelines.produce import TickProducer, count_rows, read_ticks
    from registry.features_file import read

    settings = Settings.load()
    settings.need("kafka")
    sources = {known.name: known for known in read(settings.features_path).sources}
    if source not in sources:
        raise TickwellError(f"there is no source {source}; there are {', '.join(sources)}")
    columns = {}
    for pair in column or []:
        field, equals, name = pair.partition("=")
        if not (field and equals and name):
            raise TickwellError(f"--map {pair}: write FIELD=COLUMN, as price=close")
        columns[field] = name
    ticks = read_ticks(file, sources[source], columns, as_if_now)
    total = count_rows(file)
    if limit is not None:
        ticks, total = islice(ticks, limit), min(limit, total or limit)
    producer = TickProducer(settings.kafka, sources[source].topic)
    with Progress(
        "{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    ) as progress:
        task = progress.add_task(sources[source].topic, total=total)
        sent = producer.send_all(
            ticks, rate, lambda sent: progress.update(task, completed=sent.sent)
        )
    typer.echo(f"{sent.delivered} ticks are in {sources[source].topic}")
