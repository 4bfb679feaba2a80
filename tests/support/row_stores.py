"""A store of rows in memory, for tests of what reads from one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from serving.stores.row_store import (
    UNAVAILABLE,
    Group,
    Key,
    MemberSet,
    Packed,
    RowId,
    RowStore,
    Tier,
    TieredRows,
    Unavailable,
)


class MemoryStore:
    """A `RowStore` of what it is given; `reads` are the rows of each read, in order.

    A set that it is not given is unavailable, and a row without a tier is warm.
    """

    def __init__(
        self,
        rows: Mapping[RowId, Packed] | None = None,
        members: Mapping[MemberSet, Sequence[Key]] | None = None,
        closed: Mapping[Group, Key] | None = None,
        tiers: Mapping[RowId, Tier] | None = None,
    ) -> None:
        self._rows = rows or {}
        self._members = members or {}
        self._closed = closed or {}
        self._tiers = tiers or {}
        self.reads: list[list[RowId]] = []

    def pinned(self) -> MemoryStore:
        return self

    async def rows(self, wanted: Sequence[RowId]) -> TieredRows:
        self.reads.append(list(wanted))
        tiers = [self._tiers.get(row, Tier.WARM) for row in wanted]
        return TieredRows([self._rows.get(row) for row in wanted], tiers)

    async def members(
        self, wanted: Sequence[MemberSet], most: int
    ) -> list[list[Key] | Unavailable]:
        return [list(self._members[one]) if one in self._members else UNAVAILABLE for one in wanted]

    async def last_closed(self, wanted: Sequence[Group]) -> list[Key | Unavailable | None]:
        return [self._closed.get(group) for group in wanted]

    async def close(self) -> None:
        pass


class NamedStore(MemoryStore):
    """Rows in memory that are also read by name."""

    def name(self, row: RowId) -> bytes:
        return "\n".join((row.source, *row.entity)).encode()

    async def named_rows(
        self, wanted: Sequence[tuple[str, Sequence[bytes]]]
    ) -> list[TieredRows] | Unavailable:
        found = []
        for _, names in wanted:
            named = [name.decode().split("\n") for name in names]
            found.append(await self.rows([RowId(s, tuple(key)) for s, *key in named]))
        return found


class HeldStore(MemoryStore):
    """The rows of another store, which are read, and handed out once `go_on` is set."""

    def __init__(self, store: RowStore) -> None:
        super().__init__()
        self._store = store
        self.has_read = asyncio.Event()
        self.go_on = asyncio.Event()

    async def rows(self, wanted: Sequence[RowId]) -> TieredRows:
        found = await self._store.rows(wanted)
        self.has_read.set()
        await self.go_on.wait()
        return found

    async def close(self) -> None:
        await self._store.close()
