"""Rows of a single Redis, over a link of our own: a source is a hash, its entities are fields."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from registry.formats.entity_name import entity_id
from registry.formats.redis_keys import bucket, rows_key
from serving.stores.heard_rows import Heard, Judge, Wanted
from serving.stores.named_reads import read_by_name
from serving.stores.row_batch import Hearer, Values
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

    def ask(self, wanted: Wanted, hearer: Hearer) -> Judge:
        hashes = [(_hash_key(source), names) for source, names in wanted]
        self._link.read_into(hashes, hearer)
        return _of_warm

    async def read(self, wanted: Sequence[RowId]) -> list[Packed]:
        """The packed rows in the order of `wanted`, sent with those of all others of the moment."""
        return list((await read_by_name(self, wanted)).rows)


def _of_warm(values: Values) -> Heard | None:
    """All rows as they were read, None where some were not."""
    if isinstance(values, Unavailable) or any(UNAVAILABLE in rows for rows in values):
        return None
    return Heard(values, Tier.WARM)


@cache
def _hash_key(source: str) -> bytes:
    """The key of the hash of a source's rows, as a link takes it."""
    return bulk(rows_key(source, bucket("", cluster=False)))
