"""A connection to Postgres that is restored after it was lost, and what its errors mean."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg2
from psycopg2 import errorcodes
from psycopg2.errors import UniqueViolation
from psycopg2.extensions import (
    TRANSACTION_STATUS_IDLE,
    TRANSACTION_STATUS_INERROR,
    TRANSACTION_STATUS_INTRANS,
)

from pipelines.errors import (
    OtherRules,
    ParityViolation,
    PartitionHeld,
    PipelineError,
    RowsAlreadyStored,
    SchemaBehind,
    StoreUnavailable,
    TopicRecreated,
)
from registry.database.engine import dsn, opened
from registry.resources import sql

BEGIN = sql(__package__, "begin")
IN_TRANSACTION = (TRANSACTION_STATUS_INTRANS, TRANSACTION_STATUS_INERROR)

OTHER_BITS, TOPIC_RECREATED, OTHER_RULES, SCHEMA_BEHIND = "TW001", "TW003", "TW004", "TW005"
"""SQLSTATEs that the functions of the schema `tickwell` raise."""

TRANSIENT = frozenset({"08", "25", "40", "53", "55", "57", "58"})
"""Classes of SQLSTATE of faults that end without us: connection, transaction state (a read-only
standby), rollback, resources (a full disk), object state (a lock), operator intervention, system
error."""

CONNECTION: dict[str, Any] = {
    "connect_timeout": 5,
    # a peer that vanished without closing the connection is noticed after 15 s
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 15_000,
}
"""Parameters of libpq: seconds, and milliseconds in `tcp_user_timeout`."""

STATEMENT_TIMEOUT_MS = 60_000
"""Milliseconds. A run takes a few; a statement of a minute waits for a process that hangs."""

LOCK_TIMEOUT_MS = 10_000
"""Milliseconds that a statement waits for a lock on a row or a table."""

IDLE_TIMEOUT_MS = 10_000
"""Milliseconds. A transaction in which nothing happens for so long is a stopped process's."""


class Database:
    """A connection that is opened at its first use, and again at the next use after it was lost.

    Everything is done in transactions, and a transaction leaves nothing in the session: behind a
    pool the next one is another session's. The limits are in milliseconds: for a lock, and for a
    transaction in which nothing happens.
    """

    def __init__(
        self,
        url: str,
        application_name: str,
        lock_timeout_ms: int = LOCK_TIMEOUT_MS,
        idle_timeout_ms: int = IDLE_TIMEOUT_MS,
    ) -> None:
        self._url = url
        self._parameters = {**CONNECTION, "application_name": application_name}
        self._limits = {
            "statement": STATEMENT_TIMEOUT_MS,
            "lock": lock_timeout_ms,
            "idle": idle_timeout_ms,
        }
        self._connection: Any = None

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        """A cursor in a transaction, which is committed at the end and undone by any exception.

        It may have ended before, by a `COMMIT` or a `ROLLBACK` of the caller's. Raises
        `StoreUnavailable` for a transient fault, and `RowsAlreadyStored` for a key that exists
        already.
        """
        try:
            if self._connection is None or self._connection.closed:
                self._connection = opened(dsn(self._url, **self._parameters))
                self._connection.autocommit = True  # `BEGIN` is ours
            with self._connection.cursor() as cursor, _begun(cursor, self._limits):
                yield cursor
        except psycopg2.Error as error:
            self.close()
            raise _translated(error) from error

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


@contextmanager
def _begun(cursor: Any, limits: Mapping[str, int]) -> Iterator[None]:
    """A transaction around what is done by a cursor."""
    cursor.execute(BEGIN, limits)
    connection = cursor.connection
    try:
        yield
        if connection.info.transaction_status != TRANSACTION_STATUS_IDLE:
            cursor.execute("COMMIT")
    except UniqueViolation as error:
        raise RowsAlreadyStored from error
    finally:
        if not connection.closed and connection.info.transaction_status in IN_TRANSACTION:
            cursor.execute("ROLLBACK")


def _translated(error: psycopg2.Error) -> PipelineError:
    code = error.pgcode or ""
    if code == OTHER_BITS:
        return ParityViolation(*json.loads(error.diag.message_detail or "[]"))
    if code == TOPIC_RECREATED:
        return TopicRecreated(error.diag.message_detail or "the topic")
    if code == OTHER_RULES:
        return OtherRules(error.diag.message_detail or "the source")
    if code == SCHEMA_BEHIND:
        return SchemaBehind(*json.loads(error.diag.message_detail or "[]"))
    if code == errorcodes.UNDEFINED_FUNCTION:
        return PipelineError(
            f"Postgres: {str(error).strip().splitlines()[0]}: the tables may be those of an "
            "earlier Tickwell: run `tickwell migrate`, then start the workers"
        )
    # of several hosts each has its line
    message = " ".join(str(error).split()) if not code else str(error).strip().split("\n")[0]
    if code == errorcodes.LOCK_NOT_AVAILABLE:
        return PartitionHeld(f"Postgres: {message}")
    if not code or code[:2] in TRANSIENT or code == errorcodes.QUERY_CANCELED:
        return StoreUnavailable(f"Postgres: {message}")
    return PipelineError(f"Postgres: {message} ({code})")
