"""What Postgres has of the counts of reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from sqlalchemy import Engine, select

from registry.database.tables import usage

Counts = Mapping[tuple[str, str], int]
"""Reads by version and consumer."""


def stored(engine: Engine) -> Counts:
    """What Postgres has, of all days."""
    with engine.connect() as connection:
        rows = connection.execute(select(usage)).all()
    found: Counter[tuple[str, str]] = Counter()
    for row in rows:
        found[f"{row.name}@{row.version}", row.consumer] += row.reads
    return found
