"""How everything that uses SQLAlchemy connects to Postgres."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine, create_engine, make_url

CONNECT_SECONDS = 5


def connect(url: str, **options: Any) -> Engine:
    """An engine for a libpq URL, `postgresql://` or `postgres://`; connects at the first use.

    A server that does not answer is given up after `CONNECT_SECONDS`, unless `connect_args` say
    otherwise.
    """
    arguments = {"connect_timeout": CONNECT_SECONDS, **options.pop("connect_args", {})}
    return create_engine(
        make_url(url).set(drivername="postgresql+psycopg2"), connect_args=arguments, **options
    )
