"""Connections to Postgres for everything that uses SQLAlchemy.

A URL is libpq's: psycopg2 hands it over as it is, so that several hosts, `sslmode` and whatever
else libpq knows mean here what they mean there. A pool in transaction mode (PgBouncer) may stand
between: it refuses settings at the start of a session, and gives each transaction another session
of the server, so time limits are set in each transaction, and nothing is left in a session.
"""

from __future__ import annotations

from typing import Any

import psycopg2
from psycopg2.extensions import make_dsn, parse_dsn
from sqlalchemy import Connection, Engine, create_engine, event, text

KEEPALIVES = {"keepalives_idle": 5, "keepalives_interval": 5, "keepalives_count": 2}
"""In seconds, but the count: so that it is noticed while an answer is waited for."""

ISOLATION = "READ COMMITTED"
"""The isolation of a transaction, whatever the database or the account is set to: what is read once
a lock is held must be what its last holder has left."""

ENCODING = "utf8"
"""The encoding of texts, whatever the account is set to: a key may have any characters."""

STATEMENT_TIMEOUT = text("SET LOCAL statement_timeout = :milliseconds")
"""No query: what a transaction sees of the database is decided by what comes after it."""


def connect(
    url: str,
    connect_timeout: int = 0,
    statement_timeout_ms: int = 0,
    silence_ms: int = 0,
    **options: Any,
) -> Engine:
    """An engine for a URL of libpq, `postgresql://` or `postgres://`; connects at the first use.

    `connect_timeout` is in seconds, for each host; 0 for the one of the URL, or of the environment.
    A statement may take `statement_timeout_ms`; 0 for as long as the server allows. A server whose
    system acknowledges nothing for `silence_ms` counts as gone; 0 for what this system says.
    """
    given: dict[str, Any] = {"client_encoding": ENCODING}
    if connect_timeout:
        given["connect_timeout"] = connect_timeout
    if silence_ms:
        given |= {"tcp_user_timeout": silence_ms, **KEEPALIVES}
    parameters = dsn(url, **given)
    engine = create_engine(
        "postgresql+psycopg2://",
        creator=lambda: opened(parameters),
        isolation_level=ISOLATION,
        executemany_mode="values_plus_batch",  # not a round trip for each row
        **options,
    )
    if statement_timeout_ms:
        limit = {"milliseconds": str(statement_timeout_ms)}

        @event.listens_for(engine, "begin")
        def begun(connection: Connection) -> None:
            connection.execute(STATEMENT_TIMEOUT, limit)

    return engine


def opened(parameters: str) -> Any:
    """A connection of psycopg2, given a URL or `dsn`. Raises `psycopg2.Error`.

    Before it knows in which encoding a client reads, a server says in its own why it refuses one,
    as while it starts up; psycopg2 takes that for UTF-8.
    """
    try:
        return psycopg2.connect(parameters)
    except UnicodeDecodeError as error:
        said = bytes(error.object).decode("utf-8", "replace")
        raise psycopg2.OperationalError(said) from None


def dsn(url: str, **parameters: Any) -> str:
    """What psycopg2 connects to: a URL and parameters of libpq, which win.

    Of several hosts the one that takes writes is wanted, unless the URL says otherwise: after a
    failover the first may be a standby.
    """
    given = parse_dsn(url)
    if "," in given.get("host", given.get("hostaddr", "")):
        parameters = {"target_session_attrs": "read-write", **given, **parameters}
    return str(make_dsn(url, **parameters))
