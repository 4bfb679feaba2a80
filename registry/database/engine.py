"""Connections to Postgres for everything that uses SQLAlchemy."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine, create_engine, make_url


def connect(url: str, **options: Any) -> Engine:
    """An engine for a libpq URL, `postgresql://` or `postgres://`; connects at the first use."""
    return create_engine(make_url(url).set(drivername="postgresql+psycopg2"), **options)
