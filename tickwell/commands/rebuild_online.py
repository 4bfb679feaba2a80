"""`tickwell rebuild-online`"""

from __future__ import annotations

import time
from threading import Event
from typing import TYPE_CHECKING, Annotated, Any

import typer

from registry.formats.entity_name import key_values
from tickwell.errors import TickwellError
from tickwell.late_imports import late_imports
from tickwell.settings import Settings
from tickwell.signals import stop_on

if TYPE_CHECKING:
    from pipelines.rebuild.rebuild import Done


def rebuild_online(
    source: Annotated[list[str] | None, typer.Option(help="price, volume …; all of them.")] = None,
) -> None:
    """Restore from Postgres what Redis has lost; what is newer in Redis stays.

    It checks every entity. Workers may run; one that finds Redis empty does this by itself. Without
    --source it also removes what earlier versions kept in Redis in another layout.
    """
    settings = Settings.of_stack()
    settings.need("kafka", "redis", "postgres")
    with late_imports():
        from pipelines.errors import Stopped
        from pipelines.kafka.topics import describe
        from pipelines.rebuild.rebuild import Rebuild
        from pipelines.stores.redis import earlier_layout
        from pipelines.stores.redis.connection import WarmRedis
        from pipelines.stores.redis.server_checks import check_server
        from registry import catalog
        from registry.database.engine import connect
    recorded = catalog.load(connect(settings.postgres))
    unknown = set(source or []) - recorded.writing.keys()
    if unknown:
        raise TickwellError(
            f"there is no source {', '.join(unknown)}; there are {', '.join(recorded.writing)}"
        )
    sources = [recorded.sources[name] for name in source or recorded.writing]
    topics = describe(settings.kafka_connection, [one.topic for one in sources])
    stop = Event()
    stop_on(stop)
    redis = WarmRedis(settings.redis, settings.cluster)
    check_server(redis)
    rebuild = Rebuild(settings.postgres, redis, recorded, stop)
    try:
        for one in sources:
            with _Bar(one.name) as bar:
                rebuild.refill(one, topics[one.topic], bar.show)
            typer.echo(f"{one.name}: {bar.done}")
            if bar.problem:
                typer.echo(f"{one.name}: {bar.problem}", err=True)
        if not source and (removed := earlier_layout.remove(redis, stop)):
            typer.echo(f"removed {removed:,} keys of an earlier version")
    except Stopped as stopped:
        typer.echo(f"stopped: {stopped}")
        raise typer.Exit(130) from None
    finally:
        redis.close()


class _Bar:
    """A progress bar of one source, with the rate and the time left."""

    def __init__(self, source: str) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self._progress = Progress(
            source,
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:,.0f} entities/s", style="dim"),
            TimeRemainingColumn(),
        )
        self._began = time.monotonic()
        self._task = self._progress.add_task(source, total=None, rate=0)
        self.done = self.problem = ""

    def show(self, done: Done) -> None:
        rate = done.compared / (time.monotonic() - self._began)
        self._progress.update(self._task, completed=done.compared, total=done.entities, rate=rate)
        self.done = (
            f"{done.compared:,} entities in Postgres, {done.written:,} of them restored, the "
            "others in Redis already"
        )
        if done.one_elsewhere is not None:
            self.problem = (
                f"warning: {done.elsewhere:,} entities, such as "
                f"{'/'.join(key_values(done.one_elsewhere))}, are at home in another partition in "
                "Redis than in Postgres: what is served is not what is stored. Let producers put "
                "each entity in one partition; then empty Redis, and it is rebuilt from Postgres"
            )

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._progress.stop()
