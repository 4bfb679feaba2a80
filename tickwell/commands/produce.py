"""`tickwell produce`"""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from threading import Event
from typing import Annotated

import typer

from tickwell.errors import TickwellError
from tickwell.settings import Settings
from tickwell.signals import stop_on


def produce(
    file: Annotated[
        Path,
        typer.Argument(
            help="A .csv, .csv.gz or .parquet file.", exists=True, dir_okay=False, readable=True
        ),
    ],
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
    """Send the rows of a file as ticks.

    Keys are sent as they are written, numbers with every digit; an empty cell is a field left out.
    A time is an integer in the source's unit, RFC 3339, a time without a zone (UTC), or a date.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from pipelines.errors import PipelineError
    from pipelines.kafka.producer import TickProducer
    from pipelines.kafka.topics import describe
    from pipelines.produce.tick_files import count_rows, read_ticks
    from registry.features_file import read

    settings = Settings.of_stack()
    settings.need("kafka")
    sources = {known.name: known for known in read(settings.features_path).sources}
    if source not in sources:
        raise TickwellError(f"there is no source {source}; there are {', '.join(sources)}")
    ticks = read_ticks(file, sources[source], _columns(column or []), as_if_now)
    total = count_rows(file)
    if limit is not None:
        ticks, total = islice(ticks, limit), min(limit, total or limit)
    topic = sources[source].topic
    describe(settings.kafka, [topic])  # or ticks would wait long for what is not there
    producer = TickProducer(settings.kafka, topic)
    stop = Event()
    stop_on(stop, once=True)
    with Progress(
        "{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    ) as progress:
        task = progress.add_task(topic, total=total)
        try:
            sent = producer.send_all(
                ticks, rate, lambda sent: progress.update(task, completed=sent.sent), stop
            )
        except PipelineError as error:
            raise TickwellError(
                f"{error}; {_counted(producer.sent.delivered)} in {topic}"
            ) from None
    typer.echo(f"{'stopped: ' if stop.is_set() else ''}{_counted(sent.delivered)} in {topic}")
    if stop.is_set():
        raise typer.Exit(130)


def _columns(pairs: list[str]) -> dict[str, str]:
    columns = {}
    for pair in pairs:
        field, equals, name = pair.partition("=")
        if not (field and equals and name):
            raise TickwellError(f"--map {pair}: write FIELD=COLUMN, as price=close")
        columns[field] = name
    return columns


def _counted(ticks: int) -> str:
    return "1 tick is" if ticks == 1 else f"{ticks} ticks are"
