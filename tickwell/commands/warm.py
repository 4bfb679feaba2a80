"""`tickwell warm`"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tickwell.errors import TickwellError
from tickwell.late_imports import late_imports
from tickwell.settings import Settings

if TYPE_CHECKING:
    from registry.definitions import Source
    from serving.stores.hot_promotion import Outcome
    from serving.stores.row_store import RowId


def warm(
    entities: Annotated[
        list[str] | None, typer.Argument(help="AAPL, or a position P1/AAPL; what is read most.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="A file that names an entity in each line.", dir_okay=False)
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(help="Key fields of the entities: symbol, or portfolio,symbol."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Data directory, where servers keep what is read most; ./data unless set."
        ),
    ] = None,
) -> None:
    """Bring the rows of entities into the hot tier before they are asked for.

    Without an entity or a file it takes those that the servers on the data directory have read
    most. A row comes in while an online worker keeps the hot tier up to date.
    """
    settings = Settings.of_stack(data=data)
    settings.need("redis", "redis_hot", "postgres")
    with late_imports():
        from registry import catalog
        from registry.database.engine import connect
    sources = list(catalog.load(connect(settings.postgres)).sources.values())
    named = [*(entities or []), *_lines(file)]
    rows = _rows(sources, named, kind) if named else _most_read(sources, Path(settings.data))
    if not rows:
        typer.echo("there is nothing to bring in")
        return
    with _bar() as bar:
        task = bar.add_task("hot", total=len(rows))
        outcomes = asyncio.run(_warm(settings, rows, lambda n: bar.advance(task, n)))
    _tell(outcomes)


def _lines(file: Path | None) -> list[str]:
    """The entities of a file. Raises OSError and `TickwellError`."""
    if file is None:
        return []
    try:
        lines = file.read_text("utf-8").splitlines()
    except ValueError:
        raise TickwellError(
            f"{file} does not hold UTF-8 text: write an entity in each line"
        ) from None
    named = [line.strip() for line in lines if line.strip()]
    if not named:  # what is read most is for who names no file
        raise TickwellError(f"{file} names no entity: write one in each line")
    return named


def _rows(sources: Iterable[Source], named: Iterable[str], kind: str | None) -> list[RowId]:
    """The rows of entities in all sources of their kind. Raises `TickwellError`."""
    from serving.stores.row_store import RowId

    by_key: dict[tuple[str, ...], list[str]] = {}
    for source in sources:
        by_key.setdefault(tuple(source.key), []).append(source.name)
    wanted = None if kind is None else tuple(kind.split(","))
    if wanted is not None and wanted not in by_key:
        kinds = ", ".join(map(",".join, by_key))
        raise TickwellError(f"no source has entities of the kind {kind}; there are {kinds}")
    rows: dict[RowId, None] = {}
    for text in named:
        fields = len(wanted) if wanted is not None else text.count("/") + 1
        entity = tuple(text.split("/", fields - 1))
        found = [
            RowId(source, entity)
            for key, names in by_key.items()
            if (key == wanted if wanted is not None else len(key) == fields)
            for source in names
        ]
        if not found or len(entity) != fields:
            raise TickwellError(
                f"no source has entities with as many fields as {text}: name their kind with --kind"
            )
        rows |= dict.fromkeys(found)
    return list(rows)


def _most_read(sources: Sequence[Source], data: Path) -> list[RowId]:
    """The rows of the entities that servers have read most. Raises `TickwellError`."""
    from serving.stores.most_read_files import directory_of, most_read
    from serving.stores.row_store import RowId

    keys = {source.name: source.key for source in sources}
    rows: dict[RowId, None] = {}
    for row, _ in most_read(directory_of(data)):
        alike = [name for name, key in keys.items() if key == keys.get(row.source)]
        rows |= dict.fromkeys(RowId(name, row.entity) for name in alike)
    if not rows:
        raise TickwellError(
            f"no server has kept in {directory_of(data)} what is read most; "
            "they do a minute after their start: name entities, or a --file of them"
        )
    return list(rows)


async def _warm(
    settings: Settings, rows: Sequence[RowId], on_batch: Callable[[int], None]
) -> Counter[Outcome]:
    from serving.stores.hot import HotStore
    from serving.stores.warm import WarmStore
    from serving.stores.warming import warm

    behind = WarmStore(settings.redis, cluster=settings.cluster)
    store = HotStore(settings.redis_hot, behind)
    try:
        return await warm(store.promotion, rows, on_batch)
    finally:
        await store.close()


def _bar() -> Any:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    return Progress("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())


def _tell(outcomes: Counter[Outcome]) -> None:
    """Say what became of the rows. Raises `TickwellError` where some could not be brought in."""
    from serving.stores.hot_promotion import Outcome

    typer.echo(
        f"{outcomes[Outcome.PUT]:,} rows were put into hot, {outcomes[Outcome.PRESENT]:,} were "
        f"there already, {outcomes[Outcome.NO_ROW]:,} have no row"
    )
    if lost := outcomes[Outcome.LOST]:
        typer.echo(f"{lost:,} changed at this moment: they come in when they are asked for")
    if not_fed := outcomes[Outcome.NOT_FED]:
        raise TickwellError(
            f"{not_fed:,} rows stay out: no online worker keeps hot up to date for their "
            "partitions; start one with TICKWELL_REDIS_HOT, or wait until it has caught up"
        )
    if unanswered := outcomes[Outcome.UNANSWERED]:
        raise TickwellError(
            f"{unanswered:,} rows stay out: TICKWELL_REDIS or TICKWELL_REDIS_HOT did not answer"
        )
    if outcomes[Outcome.NO_ROW] == outcomes.total():
        raise TickwellError(
            "there was nothing to put: no tick of these entities has come, or their names are "
            "written otherwise"
        )
