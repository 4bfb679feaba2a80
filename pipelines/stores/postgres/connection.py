"""A connection to Postgres that comes back, and what its errors mean."""

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
    RowsThere,
    StoreUnavailable,
    TopicRecreated,
)

OTHER_BITS, MADE_ANEW = "TW001", "TW003"
PASSING = frozenset({"08", "25", "40", "53", "55", "57", "58"})
"""Classes of SQLSTATE that pass by themselves: connection, transaction state (a read-only standby),
rollback, resources (a full disk), object state (a lock), operator intervention, system error."""

CONNECTION: dict[str, Any] = {
    "connect_timeout": 5,
    # a peer that vanished without a word is noticed after 15 s
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 15_000,
    # a run takes milliseconds; a statement that takes a minute waits for something that hangs, and
    # a transaction that does nothing for ten seconds is of a process that was stopped
    "options": "-c statement_timeout=60000 -c lock_timeout=10000"
    " -c idle_in_transaction_session_timeout=10000",
}


class Database:
    """A connection that comes back: lost ones are thrown away and opened anew at the next use."""

    def __init__(self, url: str, application_name: str) -> None:
        self._url = url
        self._name = application_name
        self._connection: Any = None

    @contextmanager
    def cursor(self) -> Iterator[Any]:
        """A cursor in autocommit mode. Raises `StoreUnavailable` for what passes by itself."""
        try:
            if self._connection is None or self._connection.closed:
                self._connection = psycopg2.connect(
                    self._url, application_name=self._name, **CONNECTION
                )
                self._connection.autocommit = True
            with self._connection.cursor() as cursor:
                yield cursor
        except psycopg2.Error as error:
            self.close()
            raise _translated(error) from error

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        """A cursor in a transaction, which is committed at the end and undone by any exception.

        Raises `StoreUnavailable` for what passes by itself, `RowsThere` for a key that is there.
        """
        with self.cursor() as cursor:
            connection = cursor.connection
            connection.autocommit = False
            try:
                yield cursor
                connection.commit()
            except UniqueViolation as error:
                raise RowsThere from error
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
    if code == MADE_ANEW:
        return TopicRecreated(error.diag.message_detail or "the topic")
    message = str(error).strip().split("\n")[0]
    if code == errorcodes.LOCK_NOT_AVAILABLE:
        return PartitionHeld(f"Postgres: {message}")
    if not code or code[:2] in PASSING or code == errorcodes.QUERY_CANCELED:
        return StoreUnavailable(f"Postgres: {message}")
    return PipelineError(f"Postgres: {message} ({code})")
