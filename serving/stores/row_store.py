"""What every store of rows can do, whatever it keeps them in."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from enum import IntEnum
from typing import NamedTuple, Protocol

Key = tuple[str, ...]
"""An entity: the values of its key fields in the order of the source's key, `("P1", "AAPL")`."""


class RowId(NamedTuple):
    """The newest row of an entity of a source."""

    source: str
    entity: Key


class MemberSet(NamedTuple):
    """The open entities of a source under one Kafka message key: the positions of a portfolio."""

    source: str
    message_key: str


class Group(NamedTuple):
    """The entities of a source whose keys begin with `key`: what a sum is over, open and closed."""

    source: str
    key: Key


class Unavailable:
    """The store did not answer."""


UNAVAILABLE = Unavailable()
Packed = bytes | None | Unavailable
"""A packed row (`registry.formats.row`), None where the entity has none."""


class Tier(IntEnum):
    """Which of the stores a row is from, in an order in which the coldest is the greatest."""

    NONE = 0
    """Of a row that no store answered."""
    HOT = 1
    """The bounded Redis of what is asked for."""
    WARM = 2
    """The Redis of every entity."""
    COLD = 3
    """Postgres, which is asked while warm does not answer."""


class TieredRows(NamedTuple):
    """Rows, and the tier that they are from: one of all rows, or one of each.

    Whatever it says of a row that is `UNAVAILABLE`, that one is from none.
    """

    rows: Sequence[Packed]
    tier: Tier | Sequence[Tier]

    def tier_of(self, index: int) -> Tier:
        """The tier of a row."""
        if isinstance(self.rows[index], Unavailable):
            return Tier.NONE
        return self.tier if isinstance(self.tier, Tier) else self.tier[index]


class NamedRows(Protocol):
    """Reads rows by names that are made once, for what is read again and again."""

    def name(self, row: RowId) -> bytes:
        """What `named_rows` is told to read a row of its source."""
        ...

    def named_rows(
        self, wanted: Sequence[tuple[str, Sequence[bytes]]]
    ) -> Awaitable[list[TieredRows] | Unavailable]:
        """Read the newest rows of entities.

        Parameters
        ----------
        wanted : sources, and the names of rows of each, which may repeat.

        Returns
        -------
        Of each source its rows, as `RowStore.rows` has them; `UNAVAILABLE` where the store did not
        answer. Nothing is raised.
        """
        ...


class RowStore(Protocol):
    """Reads packed rows, and the members of what is summed up.

    A store that is unavailable is part of an answer and not an error: the values that need it say
    so, the others are answered. So no method raises what a connection raises, and none waits longer
    than the timeout of its store.
    """

    def pinned(self) -> RowStore:
        """A store for the reads of one request that belong together, as those of a sum.

        What one read tells must be known to the next: so none is from a store that may be older
        than what the next one is from. Asked of such a store, it is that one as long as its reads
        may be of any, and another one once they are of that alone.
        """
        ...

    async def rows(self, wanted: Sequence[RowId]) -> TieredRows:
        """Read the newest rows of entities.

        Parameters
        ----------
        wanted : the rows, each once.

        Returns
        -------
        A packed row for each of `wanted`, in their order; None where the entity has none;
        `UNAVAILABLE` where the store did not answer.
        """
        ...

    async def members(
        self, wanted: Sequence[MemberSet], most: int
    ) -> list[list[Key] | Unavailable]:
        """Read which entities belong to each set.

        The sets are counted before any is read, so that a request for too much costs little.

        Parameters
        ----------
        wanted : the sets, each once.
        most : the number of members that all sets may have together.

        Returns
        -------
        The entities of each set in the order of their keys; `UNAVAILABLE` where the store did not
        answer.

        Raises
        ------
        TooLarge
            The sets that could be counted have more than `most` members together.
        """
        ...

    async def last_closed(self, wanted: Sequence[Group]) -> list[Key | Unavailable | None]:
        """Read which entity of each group was closed last; it may have been opened since.

        To be read after the members: an entity that has left them by then is here, or a later one.

        Parameters
        ----------
        wanted : the groups, each once.

        Returns
        -------
        An entity for each group, None where none was ever closed; `UNAVAILABLE` where the store
        did not answer.
        """
        ...

    async def close(self) -> None:
        """Close the connections. Reads that wait are answered `UNAVAILABLE`."""
        ...
