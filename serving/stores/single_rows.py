"""Rows of a single Redis, over a link of our own: a source is a hash, its entities are fields."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from registry.formats.redis_keys import bucket, entity_id, rows_key
from serving.stores.row_link import RowLink, bulk
from serving.stores.row_store import UNAVAILABLE, Packed, RowId, Tier, TieredRows, Unavailable


class SingleRows:
    """The `NamedRows` of a single Redis."""

    def __init__(self, link: RowLink) -> None:
        self._link = link

    def name(self, row: RowId) -> bytes:
        return bulk(entity_id(row.entity))

    async def named_rows(
        self, wanted: Sequence[tuple[str, Sequence[bytes]]]
    ) -> list[TieredRows] | Unavailable:
        found = await self._link.read([(_hash_key(source), names) for source, names in wanted])
        if isinstance(found, Unavailable):
            return found
        return [TieredRows(rows, Tier.WARM) for rows in found]

    async def read(self, wanted: Sequence[RowId]) -> list[Packed]:
        """The packed rows in the order of `wanted`, sent with those of all others of the moment."""
        by_source: dict[str, list[int]] = {}
        for number, row in enumerate(wanted):
            by_source.setdefault(row.source, []).append(number)
        names = [
            (source, [self.name(wanted[number]) for number in numbers])
            for source, numbers in by_source.items()
        ]
        answer = await self.named_rows(names)
        found: list[Packed] = [UNAVAILABLE] * len(wanted)
        if not isinstance(answer, Unavailable):
            for numbers, of_source in zip(by_source.values(), answer, strict=True):
                for number, value in zip(numbers, of_source.rows, strict=True):
                    found[number] = value
        return found


@cache
def _hash_key(source: str) -> bytes:
    """The key of the hash of a source's rows, as a link takes it."""
    return bulk(rows_key(source, bucket("", cluster=False)))
