"""A run of `tickwell produce`: check, send, and see what became of the ticks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, NamedTuple

import typer
from msgspec import structs

from tickwell.errors import TickwellError
from tickwell.settings import Settings
from tickwell.signals import stop_on

if TYPE_CHECKING:
    from pipelines.kafka.producer import Sent, TickProducer
    from pipelines.kafka.topics import Topic
    from pipelines.produce.checking import Checked, TickFiles
    from pipelines.produce.confirming import Waiting
    from pipelines.produce.options import FileOptions
    from pipelines.produce.order import Order
    from registry.definitions import Definitions, Source

REJECTED, NO_PROGRESS, STOPPED = 3, 4, 130
"""Exit codes: some ticks were rejected, the workers do not take them, a signal came."""


class Wanted(NamedTuple):
    """What is to be done with the rows."""

    reject: Path | None
    sort: bool
    allow_late: bool
    limit: int | None
    rate: float | None
    confirm: bool
    patience: float
    """Seconds without progress of the workers."""


def check_recorded(postgres: str, declared: Definitions) -> None:
    """Check that workers decide ticks of the declared sources as the file says.

    It is not checked while Postgres does not answer; what became of the ticks will say so. Raises
    `RegistryError`.
    """
    from sqlalchemy.exc import OperationalError

    from registry import catalog
    from registry.database.engine import connect
    from registry.source_rules import check_sources

    engine = connect(postgres, connect_timeout=10)
    try:
        known = catalog.load(engine)
    except OperationalError:
        return
    finally:
        engine.dispose()
    check_sources(known, declared)


class Production:
    """One run of the command: check, send, and see what became of the ticks."""

    def __init__(
        self, files: Sequence[str], source: str, options: FileOptions, wanted: Wanted
    ) -> None:
        from pipelines.kafka.topics import describe
        from pipelines.produce.checking import TickFiles
        from pipelines.produce.file_names import expand
        from registry.features_file import read_sources

        self._settings = Settings.of_stack()
        declared = read_sources(self._settings.features_path)
        sources = {known.name: known for known in declared.sources}
        if source not in sources:
            raise TickwellError(
                f"there is no source {source}; there are {', '.join(sources)}, in "
                f"{self._features}; TICKWELL_FEATURES names another file"
            )
        self._source: Source = sources[source]
        if self._source.format != "json":
            raise TickwellError(
                f"source {source}: its messages are written with a schema registry (format "
                f'"{self._source.format}"), and produce writes plain JSON: send the rows to a '
                "source without `format`"
            )
        if self._source.is_mapped:
            raise TickwellError(
                f"source {source}: its messages have a shape of their own (`map`, `items` or "
                "`where`), and produce writes plain ones: send the rows to a source without these"
            )
        self._wanted = wanted
        self._as_if_now = options.as_if_now
        self._files: TickFiles = TickFiles(expand(files), self._source, options)
        self._settings.need("kafka", *(("redis", "postgres") if wanted.confirm else ()))
        topic = self._source.topic
        # now, or ticks would wait long for what is not there
        self._topic: Topic = describe(self._settings.kafka_connection, [topic])[topic]
        if wanted.confirm:
            check_recorded(
                self._settings.postgres, structs.replace(declared, sources=(self._source,))
            )
        self._stop = Event()

    @property
    def _features(self) -> object:
        """The features file, as it is named in messages."""
        return self._settings.features_path or "the shipped features file"

    def run(self) -> None:
        """Raises `typer.Exit` with the code that says how it ended, 0 for no exception."""
        from pipelines.errors import Stopped
        from pipelines.produce.memory import keep_little

        keep_little()
        stop_on(self._stop, once=True)
        try:
            found = self._check()
            producer, sent = self._send(found)
            typer.echo(
                f"{'stopped: ' if self._stop.is_set() else ''}{_counted(sent.delivered)} in "
                f"{self._topic.name}{_others(found)}"
            )
            if self._stop.is_set():
                raise typer.Exit(STOPPED)
            if self._wanted.confirm:
                self._confirm(producer)
        except Stopped as stopped:
            typer.echo(f"stopped: {stopped}")
            raise typer.Exit(STOPPED) from None

    def _check(self) -> Checked:
        from pipelines.produce.checking import CheckOptions, Rejects, check
        from pipelines.produce.order import Order
        from pipelines.produce.verdict import check_order

        wanted = self._wanted
        order: Order | None = None
        if not self._as_if_now:
            order = Order(self._source.skew_ns, self._newest() if not wanted.allow_late else None)
        rejects = Rejects(wanted.reject) if wanted.reject is not None else None
        try:
            with _bar("checking", 1000) as update:
                found = check(
                    self._files,
                    CheckOptions(order, rejects, wanted.limit),
                    lambda rows: update(1000 * self._files.done(), f"{rows:,} rows"),
                    self._stop,
                )
            if order is not None and not wanted.allow_late:
                check_order(order, self._files, wanted.sort)
            if rejects is not None:
                rejects.keep()
        finally:
            if rejects is not None:
                rejects.close()
        return found

    def _newest(self) -> Any:
        """What is asked for the newest times that live has; None where its Redis is not named."""
        from functools import partial

        from pipelines.produce.live_times import newest_times
        from pipelines.stores.redis.connection import WarmRedis

        if not self._settings.redis:
            return None
        redis = WarmRedis(self._settings.redis, self._settings.cluster)
        return partial(newest_times, redis, self._source)

    def _send(self, found: Checked) -> tuple[TickProducer, Sent]:
        from pipelines.errors import PipelineError
        from pipelines.kafka.producer import TickProducer
        from pipelines.produce.checking import sendable
        from pipelines.produce.sending import at_once, in_order_of_time, paced

        rows = sendable(self._files, found)
        if self._wanted.sort:
            messages = in_order_of_time(rows, self._stop)
        elif self._as_if_now or self._wanted.rate is not None:
            messages = paced(rows, self._wanted.rate, self._stop)
        else:
            messages = at_once(rows)
        producer = TickProducer(
            self._settings.kafka_connection,
            self._topic.name,
            self._wanted.confirm,
            self._source.partitioner,
        )
        with _bar("sending", found.good) as update:
            try:
                sent = producer.send_all(
                    messages,
                    lambda sent: update(sent.sent, f"{sent.sent:,} ticks"),
                    self._stop,
                )
            except PipelineError as error:
                raise TickwellError(
                    f"{error}; {_counted(producer.sent.delivered)} in {self._topic.name}"
                ) from None
        return producer, sent

    def _confirm(self, producer: TickProducer) -> None:
        from pipelines.produce.confirming import NoProgress, OfflineStore, OnlineStore, wait_stored
        from pipelines.stores.postgres.connection import Database
        from pipelines.stores.redis.connection import WarmRedis

        settings, offsets = self._settings, producer.offsets
        redis = WarmRedis(settings.redis, settings.cluster)
        database = Database(settings.postgres, "tickwell produce")
        offline = OfflineStore(database)
        try:
            with _bar("waiting for the workers", None) as update:
                wait_stored(
                    [OnlineStore(redis), offline],
                    self._topic,
                    offsets.ends,
                    lambda missing: update(None, f"{missing:,} offsets to go"),
                    self._stop,
                    self._wanted.patience,
                )
            rejected = offline.rejected(self._topic, offsets)
        except NoProgress as stuck:
            typer.echo(_stuck(stuck.waiting, self._wanted.patience), err=True)
            raise typer.Exit(NO_PROGRESS) from None
        finally:
            redis.close()
            database.close()
        refused = sum(one.ticks for one in rejected)
        reasons = ", ".join(f"{one.ticks:,} {one.reason}" for one in rejected)
        typer.echo(
            f"{producer.sent.delivered - refused:,} accepted, {refused:,} rejected", nl=False
        )
        typer.echo(f": {reasons}" if rejected else "")
        for one in rejected:
            typer.echo(f"  {one.reason}: {one.detail}")
        if rejected:
            raise typer.Exit(REJECTED)


@contextmanager
def _bar(what: str, total: int | None) -> Iterator[Any]:
    """A progress bar; it is told how much is done, and what to say of it."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[said]}"),
        TimeRemainingColumn(),
    ) as progress:
        task = progress.add_task(what, total=total, said="")

        def update(done: float | None, said: str) -> None:
            progress.update(task, completed=done, said=said)

        yield update


def _others(found: Checked) -> str:
    """What is not in the topic, and why."""
    parts = []
    if found.empty:
        parts.append(f"{found.empty:,} without a value passed over")
    if found.problems:
        parts.append(f"{found.problems:,} bad ones written to the file of --reject")
    return f"; {', '.join(parts)}" if parts else ""


def _stuck(waiting: Sequence[Waiting], patience: float) -> str:
    """The line about stores that do not take what was sent."""
    lines = [
        f"{one.store} lacks {one.offsets:,} offsets"
        + (f" ({one.error})" if one.error else f" (is an {one.worker} worker running?)")
        for one in waiting
    ]
    return (
        f"tickwell: no progress for {patience:g} s: {'; '.join(lines)}. The ticks are in the "
        "topic; `tickwell status` shows the workers"
    )


def _counted(ticks: int) -> str:
    return "1 tick is" if ticks == 1 else f"{ticks} ticks are"
