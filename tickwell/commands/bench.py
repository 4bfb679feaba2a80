"""`tickwell bench`"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tickwell.errors import TickwellError
from tickwell.settings import Settings

if TYPE_CHECKING:
    from tickwell.bench.figures import Run
    from tickwell.bench.load import Plan
    from tickwell.bench.tally import Seen
    from tickwell.client.endpoint import Endpoint

MOST_ENTITIES = 1_000_000
SEED = 14
ONCE_SECONDS = 10.0
"""Seconds in which the server has to answer the request that is made before the load."""

ASKED, LOAD, OUTPUT = "What is asked", "How it is asked", "What is shown"


def bench(
    feature: Annotated[
        list[str] | None,
        typer.Option(
            "--feature", help="A feature; again for more. All stored ones.", rich_help_panel=ASKED
        ),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            help="Key fields of the entities, as symbol or portfolio,symbol.", rich_help_panel=ASKED
        ),
    ] = None,
    entities: Annotated[
        Path | None,
        typer.Option(
            help="A file with an entity a line, as AAPL or P1/AAPL; those in Redis unless set.",
            exists=True,
            dir_okay=False,
            rich_help_panel=ASKED,
        ),
    ] = None,
    limit: Annotated[
        int,
        typer.Option(
            min=1, max=MOST_ENTITIES, help="Different entities at most.", rich_help_panel=ASKED
        ),
    ] = 100_000,
    batch: Annotated[
        int, typer.Option(min=1, max=500, help="Entities a request.", rich_help_panel=ASKED)
    ] = 1,
    zipf: Annotated[
        float,
        typer.Option(
            min=0, max=5, help="Skew of what is asked for; 0: all alike.", rich_help_panel=ASKED
        ),
    ] = 1.2,
    seconds: Annotated[
        float, typer.Option(min=0.1, max=3600, help="Time that counts.", rich_help_panel=LOAD)
    ] = 10.0,
    warm_up: Annotated[
        float,
        typer.Option(min=0, max=3600, help="Seconds before it that do not.", rich_help_panel=LOAD),
    ] = 2.0,
    connections: Annotated[
        int,
        typer.Option(
            min=1,
            max=20_000,
            help="Requests at the same time, each on a connection of its own.",
            rich_help_panel=LOAD,
        ),
    ] = 1000,
    rate: Annotated[
        float | None,
        typer.Option(
            min=1,
            help="Open loop: requests a second, whatever the server does.",
            rich_help_panel=LOAD,
        ),
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=64,
            help="Processes that ask; half of the processors, at most 4.",
            rich_help_panel=LOAD,
        ),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(help="The server; TICKWELL_URL unless set.", rich_help_panel=LOAD),
    ] = None,
    hot_entities: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="How many entities hot holds, for the ideal; reckoned from its Redis.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    png: Annotated[
        Path | None,
        typer.Option(help="Draw a picture, too.", dir_okay=False, rich_help_panel=OUTPUT),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON.", rich_help_panel=OUTPUT)
    ] = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="Exit code 1 if a target is missed.", rich_help_panel=OUTPUT),
    ] = False,
) -> None:
    """Measure how fast the server answers, and from which tier.

    A thousand requests at a time by default, of entities that are drawn by Zipf's law. A request
    is answered well if it has status 200, and a store answered for all of its values, within 10 s.
    Exit code 1 if none is.
    """
    from tickwell.bench import figures, generators, picture
    from tickwell.client.endpoint import endpoint

    if png is not None:
        picture.check_drawing()
    settings = Settings.of_stack(url=url)
    server = endpoint(settings.url, None, None, "tickwell-bench")
    asked, named, rows_an_entity = _asked(settings, feature or [], kind, entities, limit)
    plan = _plan(server, settings, asked, named, batch)._replace(
        exponent=zipf,
        connections=connections,
        rate=rate,
        warm_up_seconds=warm_up,
        seconds=seconds,
    )
    _ask_once(settings, asked, named[0], batch)
    plans = generators.shares(plan, processes or generators.default_processes())
    shape = (zipf, batch, connections, len(plans), rate, seconds)
    run = figures.Run(server.shown, asked, len(named), *shape)
    seen = _generated(plans, warm_up + seconds)
    held, unknown = _held(settings, hot_entities, rows_an_entity)
    found = figures.figures(run, seen, held, is_hot_set=bool(settings.redis_hot))
    _show(run, found, as_json)
    if unknown:
        typer.echo(f"there is no ideal beside the hits: {unknown}", err=True)
    if png is not None:
        picture.draw(png, run, seen, found)
    if not seen.answered or (check and not found.is_met):
        raise typer.Exit(1)


def _asked(
    settings: Settings, features: Sequence[str], kind: str | None, file: Path | None, limit: int
) -> tuple[list[str], list[dict[str, str]], int | None]:
    """Features, entities, and how many rows each has: what is not named is found in Redis.

    Without that the rows are not known.
    """
    from tickwell.bench import known

    if not settings.redis:
        if not features or file is None:
            raise TickwellError(
                "TICKWELL_REDIS is not set, where features and entities would be looked up: name "
                "--feature and --entities"
            )
        return list(features), _listed(file, kind or "symbol", limit), None
    stores = known.Stores(settings.redis, settings.cluster)
    catalog = stores.catalog()
    fields = known.kind_of(catalog, features, kind)
    named = (
        stores.entities(catalog, fields, limit)
        if file is None
        else _listed(file, ",".join(fields), limit)
    )
    asked = list(features) or known.features_of(catalog, fields)
    return asked, named, known.rows_an_entity(catalog, fields)


def _ask_once(
    settings: Settings, features: Sequence[str], entity: dict[str, str], at_once: int
) -> None:
    """See whether the server answers what it will be asked. Raises `ClientError` with its reason.

    A load generator counts what it is refused, and reads no problem document.
    """
    from tickwell.client.blocking import Client
    from tickwell.client.calls import Retries

    with Client(
        settings.url,
        api_key=settings.api_key,
        tls=settings.url_ca,
        deadline_seconds=ONCE_SECONDS,
        retries=Retries(attempts=1),
    ) as client:
        if at_once == 1:
            client.get_online_features(features, entity=entity)
        else:
            client.get_batch_features(features, [entity])


def _held(
    settings: Settings, named: int | None, rows_an_entity: int | None
) -> tuple[float | None, str]:
    """How many entities hot holds, and if that is not known, why.

    The figures are there already: what hot's Redis does not tell must not cost them.
    """
    from tickwell.bench import known

    if named is not None or not settings.redis_hot:
        return named, ""
    if rows_an_entity is None:
        return None, "TICKWELL_REDIS is not set, which says how many rows an entity has in hot"
    try:
        held = known.hot(settings.redis_hot).entities(rows_an_entity)
    except TickwellError as error:
        return None, str(error)
    return held, "" if held is not None else "TICKWELL_REDIS_HOT holds no keys"


def _listed(file: Path, kind: str, limit: int) -> list[dict[str, str]]:
    """The entities of a file, each once. Raises `TickwellError` where it has none."""
    from itertools import islice

    from tickwell.client.entities import entity_of

    try:
        with file.open(encoding="utf-8") as lines:
            texts = (line.strip() for line in lines)
            named = dict.fromkeys(text for text in islice(texts, MOST_ENTITIES) if text)
    except ValueError:
        raise TickwellError(
            f"--entities {file}: it does not hold UTF-8 text: write an entity in each line"
        ) from None
    if not named:
        raise TickwellError(f"--entities {file}: it names no entity; one a line, as AAPL")
    return [entity_of(text, kind) for text in islice(named, limit)]


def _plan(
    server: Endpoint,
    settings: Settings,
    features: Sequence[str],
    entities: Sequence[dict[str, str]],
    at_once: int,
) -> Plan:
    """A plan that says what is asked; how is up to the caller."""
    import random

    import msgspec

    from tickwell.bench.load import Plan

    if server.proxy is not None:
        raise TickwellError(
            f"{server.shown} is behind a proxy, by the environment: a proxy would be measured; "
            "NO_PROXY names hosts that need none"
        )
    path = "/features/online" if at_once == 1 else "/features/batch"
    where = server.url.partition("://")[2].partition("/")[0]
    headers = {"Host": where, **server.headers, "Content-Type": "application/json"}
    lines = [f"POST {server.path}{path} HTTP/1.1", *(f"{n}: {v}" for n, v in headers.items())]
    texts = [msgspec.json.encode(entity) for entity in entities]
    random.Random(SEED).shuffle(texts)  # which are popular is chance, and the same in every run
    before = b'{"features":%b,' % msgspec.json.encode(features)
    many = at_once > 1
    return Plan(
        host=server.host,
        port=server.port,
        tls=None if server.tls is None else settings.url_ca,
        head="\r\n".join([*lines, "Content-Length: "]).encode(),
        before=before + (b'"entities":[' if many else b'"entity":'),
        after=b"]}" if many else b"}",
        entities=texts,
        features=len(features),
        exponent=0.0,
        at_once=at_once,
        connections=1,
        rate=None,
        warm_up_seconds=0.0,
        seconds=0.0,
        seed=SEED,
    )


def _generated(plans: Sequence[Plan], seconds: float) -> Seen:
    """What the generators see, with a progress bar where somebody looks."""
    import time

    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from tickwell.bench.generators import generate

    columns = (TextColumn("asking"), BarColumn(), TextColumn("{task.fields[answered]:,} answers"))
    with Progress(
        *(*columns, TimeRemainingColumn()), console=Console(stderr=True), transient=True
    ) as progress:
        task = progress.add_task("asking", total=seconds, answered=0)
        began = time.monotonic()

        def told(answered: int) -> None:
            progress.update(task, completed=time.monotonic() - began, answered=answered)

        return generate(plans, told)


def _show(run: Run, found: Any, as_json: bool) -> None:
    from tickwell.bench.figures import table

    if as_json:
        import msgspec

        both = {"run": run._asdict(), **msgspec.to_builtins(found)}
        typer.echo(msgspec.json.encode(both))
        return
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console.width = 200
    console.print(table(run, found), soft_wrap=True, highlight=False)
