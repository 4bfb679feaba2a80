"""What workers have found to differ: on record in Postgres until somebody has seen to it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from pipelines.stores.postgres.connection import Database
from registry.comparisons import Difference, Kind, Place
from registry.resources import sql

RECORD, FORGET = sql(__package__, "record_difference"), sql(__package__, "forget")
RECORDED, FIRST = sql(__package__, "recorded"), sql(__package__, "recorded_first")

MOST_RECORDED = 1_000
"""Differences that are kept: where everything differs, more of them say no more."""

MOST_TOLD = 3
"""Those that are told in words."""


class OnRecord(NamedTuple):
    """How many there are by place and source, and the first of them."""

    counts: Mapping[tuple[str, str], int]
    first: Sequence[Difference]


def on_record(database: Database) -> OnRecord:
    """What is on record. Raises `StoreUnavailable`."""
    with database.transaction() as cursor:
        cursor.execute(RECORDED)
        counts = {(place, source): int(number) for place, source, number in cursor.fetchall()}
        if not counts:
            return OnRecord({}, ())
        cursor.execute(FIRST, {"most": MOST_TOLD})
        first = [
            Difference(Place(place), Kind(kind), source, tuple(entity), *rest)
            for place, kind, source, entity, *rest in cursor.fetchall()
        ]
    return OnRecord(counts, first)


def record(database: Database, found: Sequence[Difference]) -> list[Difference]:
    """Put differences on record; those that were not there yet. Raises `StoreUnavailable`."""
    recorded = []
    with database.transaction() as cursor:
        for one in found:
            named = one[: len(one) - 2]  # what is found there now may be another value tomorrow
            digest = hashlib.sha256(msgspec.json.encode(named)).digest()
            row = one._asdict() | {"digest": digest, "most": MOST_RECORDED}
            cursor.execute(RECORD, row | {"entity": list(one.entity)})
            if cursor.fetchone() is not None:
                recorded.append(one)
    return recorded


def forget(database: Database) -> int:
    """Remove all of them; how many there were. Raises `StoreUnavailable`."""
    with database.transaction() as cursor:
        cursor.execute(FORGET)
        removed: int = cursor.rowcount
    return removed
