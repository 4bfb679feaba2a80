"""What each computation of a backfill has: it is alone, yields to live, tells how far it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event
from typing import NamedTuple

from pipelines.errors import BackfillElsewhere
from pipelines.replay.throttle import Throttle
from pipelines.stores.postgres.connection import CONNECTION
from registry.database.engine import dsn, opened
from registry.definitions import Catalog, RowSchema
from registry.language.program import Program, compile_program
from registry.lifecycle.backfills import LOCK_CLASS, Backfill
from registry.lifecycle.states import version_of

APPLICATION = "tickwell backfill"


class Done(NamedTuple):
    """What a process has done of a backfill; `waits` says what it waits for.

    One from Postgres counts `entities`; one from Kafka `offsets`, and as `without_row` the ticks of
    its ranges that have no row which lacks the version, so that no value is stored of them.
    """

    entities: int = 0
    ticks: int = 0
    finished: bool = False
    waits: str | None = None
    offsets: int = 0
    without_row: int = 0


Report = Callable[[Done], None]
"""Takes the progress after each piece that is stored, and when the backfill begins to wait."""


@contextmanager
def alone(postgres: str, backfill: Backfill) -> Iterator[None]:
    """One process at a time; behind a pool that gives sessions away only the progress says so.

    Raises `BackfillElsewhere`.
    """
    session = opened(dsn(postgres, **CONNECTION, application_name=APPLICATION))
    try:
        session.autocommit = True
        with session.cursor() as cursor:
            numbers = LOCK_CLASS, backfill.id
            cursor.execute("SELECT pg_try_advisory_lock(%s, %s)", numbers)
            if not cursor.fetchone()[0]:
                raise BackfillElsewhere(backfill.ref)
        yield
    finally:
        session.close()


def program_of(catalog: Catalog, ref: str) -> Program:
    """The program of a version alone."""
    return compile_program(catalog, schema_of(catalog, ref))


def schema_of(catalog: Catalog, ref: str) -> RowSchema:
    """A row schema with a version alone, which nothing is stored in."""
    version = version_of(catalog, ref)
    return RowSchema(0, version.source or "", (version.ref,))


def wait_for_live(throttle: Throttle, done: Done, report: Report, stop: Event) -> None:
    """Wait while live suffers, or until `stop` is set."""
    throttle.wait(stop, lambda why: report(done._replace(waits=why)))
