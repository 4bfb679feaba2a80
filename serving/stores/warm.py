"""Warm: the Redis that holds every entity.

Rows of a single server come over a link of our own (`serving.stores.row_link`), those of a cluster
from its nodes, each by itself (`serving.stores.cluster_rows`). Either way all that are wanted in a
moment are read together, because one read for many requests costs little more than one for each of
them. Members and last closes are read by redis-py. A read that fails is answered as such, and none
takes longer than the timeout.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from registry import redis_clients
from registry.formats.last_close import closed_member
from registry.formats.redis_keys import closed_key, entity_id, key_values, members_key
from serving.errors import TooLarge
from serving.stores.cluster_reads import reads_of
from serving.stores.cluster_rows import ClusterRows
from serving.stores.redis_reads import ask_all
from serving.stores.row_link import RowLink
from serving.stores.row_store import (
    UNAVAILABLE,
    Group,
    Key,
    MemberSet,
    RowId,
    Tier,
    TieredRows,
    Unavailable,
)
from serving.stores.single_rows import SingleRows


class WarmStore:
    """The `RowStore` of the Redis, or of the Redis Cluster, that holds every entity."""

    def __init__(
        self,
        url: str,
        on_read: Callable[[int], None] = lambda rows: None,
        cluster: bool = False,
    ) -> None:
        self._reads = reads_of(url, cluster, redis_clients.rows)
        self._link = None if cluster else RowLink(url, on_read)
        self.named = None if self._link is None else SingleRows(self._link)
        """Reads rows of a single server by name; None on a cluster."""
        self._rows = self.named or ClusterRows(self._reads, on_read)

    async def rows(self, wanted: Sequence[RowId]) -> TieredRows:
        """The packed rows, read together with those of all requests that wait in this moment."""
        return TieredRows(await self._rows.read(wanted), Tier.WARM)

    async def members(
        self, wanted: Sequence[MemberSet], most: int
    ) -> list[list[Key] | Unavailable]:
        """The entities of each set. Raises `TooLarge` when there are more than `most`."""
        keys = [members_key(one.source, one.message_key) for one in wanted]
        counts = await ask_all(self._reads, [("SCARD", key) for key in keys])
        counted = [n for n, count in enumerate(counts) if not isinstance(count, Unavailable)]
        total = sum(counts[n] for n in counted)
        if total > most:
            largest = max(counted, key=lambda n: counts[n])
            raise TooLarge(
                f"there are {total} members to add up, {counts[largest]} of them in "
                f"{wanted[largest].message_key}; a request may add up {most}: ask for less"
            )
        sets = await ask_all(self._reads, [("SMEMBERS", keys[n]) for n in counted])
        found: list[list[Key] | Unavailable] = [UNAVAILABLE] * len(wanted)
        for n, members in zip(counted, sets, strict=True):
            if not isinstance(members, Unavailable):
                names = sorted(member.decode() for member in members)
                found[n] = [(wanted[n].message_key, *key_values(name)) for name in names]
        return found

    async def last_closed(self, wanted: Sequence[Group]) -> list[Key | Unavailable | None]:
        """The entity of each group that was closed last."""
        keys = [closed_key(group.source, entity_id(group.key)) for group in wanted]
        found = await ask_all(self._reads, [("GET", key) for key in keys])
        return [
            (group.key[0], *key_values(closed_member(packed)))
            if isinstance(packed, bytes)
            else packed
            for group, packed in zip(wanted, found, strict=True)
        ]

    async def close(self) -> None:
        if self._link is not None:
            await self._link.close()
        await self._reads.close()
