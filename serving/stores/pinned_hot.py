"""Hot, and what is behind it, for the reads of one request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from serving.stores.row_store import (
    Group,
    Key,
    MemberSet,
    RowId,
    RowStore,
    TieredRows,
    Unavailable,
)


class PinnedHot:
    """A `RowStore` that reads nothing in hot once what is behind it stays with one store.

    `rows` reads rows in hot, and where they are not there in the store that it is told; `behind` is
    the `pinned` one.
    """

    def __init__(
        self, rows: Callable[[Sequence[RowId], RowStore], Awaitable[TieredRows]], behind: RowStore
    ) -> None:
        self._rows, self._behind = rows, behind

    def pinned(self) -> RowStore:
        alone = self._behind.pinned()
        return self if alone is self._behind else alone

    async def rows(self, wanted: Sequence[RowId]) -> TieredRows:
        if self.pinned() is not self:
            return await self._behind.rows(wanted)
        return await self._rows(wanted, self._behind)

    async def members(
        self, wanted: Sequence[MemberSet], most: int
    ) -> list[list[Key] | Unavailable]:
        """As `RowStore.members`; raises `TooLarge`."""
        return await self._behind.members(wanted, most)

    async def last_closed(self, wanted: Sequence[Group]) -> list[Key | Unavailable | None]:
        return await self._behind.last_closed(wanted)

    async def close(self) -> None:
        """Nothing: the connections are those of all requests."""
