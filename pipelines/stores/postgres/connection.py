"""A connection to Postgres that is restored after it was lost, and what its errors mean."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
from psycopg2 import errorcodes
from psycopg2.errors import UniqueViolation

from pipelines.errors import (
    ParityViolation,
    PartitionHeld,
    PipelineError,
    RowsAlreadyStored,
    StoreUnavailable,
    TopicRecreated,
)

OTHER_BITS, TOPIC_RECREATED = "TW001", "TW003"
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
    """A connection that is opened at its first use, and again at the next use after it was lost."""

    def __init__(
        self, url: str, application_name: str, lock_timeout_ms: int = LOCK_TIMEOUT_MS
    ) -> None:
        self._url = url
        self._parameters = {
            **CONNECTION,
            "application_name": application_name,
            "options": f"-c statement_timeout={STATEMENT_TIMEOUT_MS}"
            f" -c lock_timeout={lock_timeout_ms}"
            f" -c idle_in_transaction_session_timeout={IDLE_TIMEOUT_MS}",
        }
        self._connection: Any = None

    @contextmanager
    def cursor(self) -> Iterator[Any]:
        """A cursor in autocommit mode. Raises `StoreUnavailable` for a transient fault."""
        try:
            if self._connection is None or self._connection.closed:
                self._connection = psycopg2.connect(self._url, **self._parameters)
                self._connection.autocommit = True
            with self._connection.cursor() as cursor:
                yield cursor
        except psycopg2.Error as error:
            self.close()
            raise _translated(error) from error

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        """A cursor in a transaction, which is committed at the end and undone by any exception.

        Raises `StoreUnavailable` for a transient fault, and `RowsAlreadyStored` for a key that
        exists already.
        """
        with self.cursor() as cursor:
            connection = cursor.connection
            connection.autocommit = False
            try:
                yield cursor
                connection.commit()
            except UniqueViolation as error:
                raise RowsAlreadyStored from error
            finally:
                if not connection.closed:
                    connection.rollback()
                    connection.autocommit = True

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _translated(error: psycopg2.Error) -> PipelineError:
    code = error.pgcode or ""
    if code == OTHER_BITS:
        return ParityViolation(*json.loads(error.diag.message_detail or "[]"))
    if code == TOPIC_RECREATED:
        return TopicRecreated(error.diag.message_detail or "the topic")
    message = str(error).strip().split("\n")[0]
    if code == errorcodes.LOCK_NOT_AVAILABLE:
        return PartitionHeld(f"Postgres: {message}")
    if not code or code[:2] in TRANSIENT or code == errorcodes.QUERY_CANCELED:
        return StoreUnavailable(f"Postgres: {message}")
    return PipelineError(f"Postgres: {message} ({code})")
