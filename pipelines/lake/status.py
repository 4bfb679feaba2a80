"""What the lake has, and what it does not have yet."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import NamedTuple

from pipelines.lake.days import DayState, days_of_lake, schemas_of
from pipelines.lake.export import CONNECT_SECONDS, SILENCE_MS
from registry import catalog
from registry.database.engine import connect


class SourceStatus(NamedTuple):
    """The days of a source."""

    source: str
    first: date | None
    """The first day that is in files; None where none is."""
    last: date | None
    days: int
    files: int
    rows: int
    size: int
    """Bytes of all files."""
    missing: dict[DayState, tuple[date, ...]]
    """Days that the next export writes, by what they lack."""
    open_days: int
    """Days that are not over, which an export leaves out."""
    dropped_days: int
    """Days that Postgres has let go of."""
    dropped_rows: int
    """Rows of theirs in the files, most of which Postgres does not have any more."""


def lake_status(postgres: str, lake: Path, today: date) -> list[SourceStatus]:
    """What the lake has of each source. Raises SQLAlchemy's `DBAPIError` and `RegistryEmpty`."""
    engine = connect(postgres, CONNECT_SECONDS, silence_ms=SILENCE_MS)
    try:
        known = catalog.load(engine)
        with engine.connect() as connection:
            schemas = schemas_of(connection, known)
            days = days_of_lake(connection)
    finally:
        engine.dispose()
    found = []
    for source in sorted(known.sources):
        of_source = [day for day in days if day.source == source]
        written = [day for day in of_source if day.written is not None]
        states = [(day.day, day.state(schemas, lake)) for day in of_source if day.day < today]
        found.append(
            SourceStatus(
                source,
                written[0].day if written else None,
                written[-1].day if written else None,
                len(written),
                sum(len(day.files) for day in written),
                sum(day.rows for day in written),
                sum(file.bytes for day in written for file in day.files),
                _missing(states),
                sum(day.day >= today for day in of_source),
                sum(day.dropped for day in written),
                sum(day.rows for day in written if day.dropped),
            )
        )
    return found


def _missing(states: Iterable[tuple[date, DayState]]) -> dict[DayState, tuple[date, ...]]:
    found: dict[DayState, tuple[date, ...]] = {}
    for day, state in states:
        if state is not DayState.WHOLE:
            found[state] = (*found.get(state, ()), day)
    return found
