"""One moment of the database, read by several sessions at once.

A training set is made of many statements, and a replay or a new row schema may come between two of
them. All of them see the database as it was when the first one began: the catalog, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psycopg2
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from registry import catalog
from registry.database.engine import STATEMENT_TIMEOUT, connect
from registry.database.month_partitions import HOLD
from registry.definitions import Catalog

SESSIONS = 2
"""Sessions that read at once: each has a process of Postgres."""

CONNECT_SECONDS, SILENCE_MS = 5, 15_000
STATEMENT_TIMEOUT_MS = 120_000
"""Milliseconds. A statement of a training set takes a second, more on a machine that is busy."""

CHECKED = text(
    "SELECT set_config(name, '1s', false) FROM pg_settings"
    " WHERE name = 'client_connection_check_interval'"
)
"""Lets a session look each second whether its client is there: one that is ended in the middle
of a statement would else leave it running, until it is done or its time is over."""

CHUNK_BYTES = 1 << 20

ROW_BYTES = 32_000_000
"""Bytes of rows that are in memory at once, about: a row of 500 features has 6,500."""

READING: Any = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
"""Options of a session's transaction."""

Int64s = NDArray[np.int64]
COPY = "COPY ({}) TO STDOUT (FORMAT binary)"


class ScanLimits(NamedTuple):
    """When the rows of a stretch of time are read in place of look-ups (`serving.history.scan`)."""

    fewest_questions: int = 20_000
    """Fewer are looked up in a third of a second."""
    rows_a_question: float = 6
    """Rows that are sent, sorted and searched in the time of one look-up."""
    rows_an_entity: float = 1
    """Where there are fewer, the ticks that are asked for lie before the stretch."""


SCAN_LIMITS = ScanLimits()


class Elsewhere(NamedTuple):
    """Processes that answer parts of a sweep, on other machines perhaps."""

    run: Callable[..., Sequence[Any]]
    """Does a job with each of some parts, which are sent; takes their progress by their numbers,
    and what ends them early. Gives the results in the order of the parts."""
    workers: int
    """How many parts are done at the same time."""
    fewest_rows: int = 50_000
    """Questions of a part, unless there are fewer: each has to find what earlier days leave."""


class LakeReads(NamedTuple):
    """Where the files of the lake are, and when they are read (`serving.history.lake`)."""

    folder: Path | None = None
    """None where there is no lake."""
    fewest_questions: int = 20_000
    """Fewer are looked up in Postgres, but for days that it has let go of."""
    rows_a_question: float = 40
    """Rows of files that are read and searched in the time of one look-up."""
    stored_weight: float = 10
    """Rows of files that are read in the time of one of Postgres."""
    rows_at_once: int = 1_000_000
    """Rows of files that are in memory at once, about: 100 MB, and with each feature 10 more."""
    elsewhere: Elsewhere | None = None
    """Who answers the parts of a sweep in place of this process; they see the folder, too."""


NO_LAKE = LakeReads()

Stores = tuple[str, LakeReads]
"""The URL of the database, and where the lake is."""


class SharedSnapshot(NamedTuple):
    """A snapshot that other processes may read, too, as long as its own one holds it."""

    url: str
    name: str

    def __repr__(self) -> str:
        return f"SharedSnapshot({self.name})"  # the URL may have a password


class Snapshot:
    """The database as it was at one moment; `snapshot` makes one."""

    def __init__(
        self,
        connections: Sequence[Connection],
        threads: ThreadPoolExecutor,
        row_bytes: int = ROW_BYTES,
        scans: ScanLimits = SCAN_LIMITS,
        known: Catalog | None = None,
        lake: LakeReads = NO_LAKE,
        shared: SharedSnapshot | None = None,
    ) -> None:
        """The catalog is read, unless it is `known`."""
        self.row_bytes = row_bytes
        self.scans = scans
        self.lake = lake
        self.shared = shared
        """What other processes read the same by, if they can."""
        self._connections = connections
        self._threads = threads
        self.catalog = catalog.read(connections[0]) if known is None else known

    @property
    def sessions(self) -> int:
        """Statements that are answered at the same time."""
        return len(self._connections)

    @property
    def connection(self) -> Connection:
        """A session that reads."""
        return self._connections[0]

    def shares(self, numbers: Int64s) -> list[Int64s]:
        """Numbers in as many parts as statements are answered at the same time, or fewer."""
        parts = np.array_split(numbers, len(self._connections))
        return [part for part in parts if len(part)]

    def rows(self, statement: str, parameters: Mapping[str, Any]) -> list[Any]:
        """The rows of a statement, as psycopg2 gives them."""
        found = self._connections[0].exec_driver_sql(statement, dict(parameters))
        return list(found.fetchall())

    def copied(self, statement: str, asked: Sequence[Mapping[str, Any]]) -> list[memoryview]:
        """The rows of a statement for each of the parameters, in PostgreSQL's binary COPY format.

        They are asked for at the same time, one by each session (`shares`). Raises SQLAlchemy's
        `DBAPIError`.
        """
        assert len(asked) <= len(self._connections)
        pairs = zip(self._connections, asked, strict=False)
        running = [self._threads.submit(_copied, one, statement, each) for one, each in pairs]
        return [one.result() for one in running]


@contextmanager
def snapshot(
    url: str,
    sessions: int = SESSIONS,
    row_bytes: int = ROW_BYTES,
    scans: ScanLimits = SCAN_LIMITS,
    lake: LakeReads = NO_LAKE,
) -> Iterator[Snapshot]:
    """The database at `url` as it is now; rows are read about `row_bytes` at a time.

    With `lake` days of history may be read in its files, as they were at this moment.

    Raises SQLAlchemy's `DBAPIError`, and `RegistryEmpty`.
    """
    engine = connect(url, CONNECT_SECONDS, silence_ms=SILENCE_MS, pool_size=sessions)
    try:
        with ExitStack() as stack:
            connections = [stack.enter_context(_reading(engine)) for _ in range(sessions)]
            for one in connections:  # so that none waits for longer, for months that go, too
                _limit(one)
            first, *others = connections
            first.exec_driver_sql(HOLD)
            seen = first.execute(text("SELECT pg_export_snapshot()")).scalar_one()
            shared = SharedSnapshot(url, seen)
            for other in others:
                _share(other, shared)
            threads = stack.enter_context(ThreadPoolExecutor(sessions, "history"))
            yield Snapshot(connections, threads, row_bytes, scans, lake=lake, shared=shared)
    finally:
        engine.dispose()


@contextmanager
def copying(shared: SharedSnapshot) -> Iterator[Callable[[str, Mapping[str, Any]], memoryview]]:
    """What copies rows of a statement as another process's snapshot has them.

    Raises SQLAlchemy's `DBAPIError`, also where that process has ended.
    """
    engine = connect(shared.url, CONNECT_SECONDS, silence_ms=SILENCE_MS, pool_size=1)
    try:
        with _reading(engine) as connection:
            _limit(connection)
            _share(connection, shared)
            yield partial(_copied, connection)
    finally:
        engine.dispose()


def _share(connection: Connection, shared: SharedSnapshot) -> None:
    """See what a snapshot sees; it has to be the first query of a transaction."""
    connection.exec_driver_sql(f"SET TRANSACTION SNAPSHOT '{shared.name}'")


def _limit(connection: Connection) -> None:
    connection.execute(STATEMENT_TIMEOUT, {"milliseconds": STATEMENT_TIMEOUT_MS})


@contextmanager
def snapshot_of(
    connection: Connection, known: Catalog, lake: LakeReads = NO_LAKE
) -> Iterator[Snapshot]:
    """The database as it is now, read by one session; it has the limits that the session has.

    Raises SQLAlchemy's `DBAPIError`.
    """
    connection.execution_options(**READING)
    with connection.begin(), ThreadPoolExecutor(1, "history") as threads:
        connection.exec_driver_sql(HOLD)
        yield Snapshot([connection], threads, known=known, lake=lake)


@contextmanager
def _reading(engine: Engine) -> Iterator[Connection]:
    with engine.connect() as connection:
        connection.execute(CHECKED)  # its own transaction: that of reading begins with a lock
        connection.commit()
        connection.execution_options(**READING)
        with connection.begin():
            yield connection


def _copied(connection: Connection, statement: str, parameters: Mapping[str, Any]) -> memoryview:
    raw: Any = connection.connection.driver_connection
    sent = BytesIO()
    try:
        with raw.cursor() as cursor:
            made = cursor.mogrify(statement, parameters).decode()
            cursor.copy_expert(COPY.format(made), sent, CHUNK_BYTES)
    except psycopg2.Error as error:  # SQLAlchemy does not see what goes past it
        raise DBAPIError.instance("COPY", {}, error, psycopg2.Error) from None
    return sent.getbuffer()
