"""Rows of a single Redis, read over a link of our own."""

from __future__ import annotations

from collections.abc import Sequence

from registry.formats.redis_keys import bucket, entity_id, rows_key
from serving.stores.row_link import RowLink, bulk
from serving.stores.row_store import UNAVAILABLE, Packed, RowId, Unavailable


class SingleRows:
    """Reads of rows by their names: a source is a hash, its entities are fields."""

    def __init__(self, link: RowLink) -> None:
        self._link = link

    async def read(self, wanted: Sequence[RowId]) -> list[Packed]:
        """The packed rows in the order of `wanted`, sent with those of all others of the moment."""
        by_source: dict[str, list[int]] = {}
        for number, row in enumerate(wanted):
            by_source.setdefault(row.source, []).append(number)
        answer = await self._link.read(
            [
                (
                    hash_key(source),
                    [bulk(entity_id(wanted[number].entity)) for number in numbers],
                )
                for source, numbers in by_source.items()
            ]
        )
        found: list[Packed] = [UNAVAILABLE] * len(wanted)
        if not isinstance(answer, Unavailable):
            for numbers, values in zip(by_source.values(), answer, strict=True):
                for number, value in zip(numbers, values, strict=True):
                    found[number] = value
        return found


def hash_key(source: str) -> bytes:
    """The key of the hash of a source's rows, as a link takes it."""
    return bulk(rows_key(source, bucket("", cluster=False)))
