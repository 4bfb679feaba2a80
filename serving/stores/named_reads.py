"""Rows read by names where a store has only their ids, and the other way round."""

from __future__ import annotations

from collections.abc import Sequence

from registry.formats.entity_name import entity_id, key_values
from serving.stores.row_store import (
    UNAVAILABLE,
    NamedRows,
    Packed,
    RowId,
    RowStore,
    Tier,
    TieredRows,
    Unavailable,
)


class NamedById:
    """The `NamedRows` of a store that has none, as a Redis Cluster."""

    def __init__(self, store: RowStore) -> None:
        self._store = store

    def name(self, row: RowId) -> bytes:
        return entity_id(row.entity).encode()

    async def named_rows(
        self, wanted: Sequence[tuple[str, Sequence[bytes]]]
    ) -> list[TieredRows] | Unavailable:
        """The rows, each of which is read once."""
        ids = [
            [RowId(source, key_values(name.decode())) for name in names] for source, names in wanted
        ]
        once = dict.fromkeys(row for of in ids for row in of)
        found = await self._store.rows(list(once))
        index = {row: number for number, row in enumerate(once)}
        return [
            TieredRows(
                [found.rows[index[row]] for row in of], [found.tier_of(index[row]) for row in of]
            )
            for of in ids
        ]


async def read_by_name(named: NamedRows, wanted: Sequence[RowId]) -> TieredRows:
    """The rows in the order of `wanted`."""
    by_source: dict[str, list[int]] = {}
    for number, row in enumerate(wanted):
        by_source.setdefault(row.source, []).append(number)
    answer = await named.named_rows(
        [
            (source, [named.name(wanted[number]) for number in numbers])
            for source, numbers in by_source.items()
        ]
    )
    rows: list[Packed] = [UNAVAILABLE] * len(wanted)
    tiers = [Tier.NONE] * len(wanted)
    if not isinstance(answer, Unavailable):
        for numbers, found in zip(by_source.values(), answer, strict=True):
            for index, number in enumerate(numbers):
                rows[number], tiers[number] = found.rows[index], found.tier_of(index)
    return TieredRows(rows, tiers)
