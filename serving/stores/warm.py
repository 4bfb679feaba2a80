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
from registry.formats.entity_name import entity_id, key_values
from registry.formats.last_close import closed_member
from registry.formats.redis_keys import closed_key, members_key
from serving.stores.breakers import Breaker
from serving.stores.cluster_reads import PROBES, ClusterReads
from serving.stores.cluster_rows import ClusterRows, hash_of
from serving.stores.member_limit import check_members
from serving.stores.redis_reads import SingleReads, ask_all
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

NOBODY = RowId("", ("",))
"""A row that nobody has: requests name no entity by an empty text."""


class WarmStore:
    """The `RowStore` of the Redis, or of the Redis Cluster, that holds every entity."""

    def __init__(
        self,
        url: str,
        on_read: Callable[[int], None] = lambda rows: None,
        cluster: bool = False,
        breaker: Breaker | None = None,
    ) -> None:
        self.breaker = breaker or Breaker("Redis")
        """It is told of all reads here, and is asked nothing: whoever reads asks it.

        Of a cluster it is open while no node answers.
        """
        self._cluster = ClusterReads(url, redis_clients.rows, self.breaker) if cluster else None
        self._reads = self._cluster or SingleReads(url, redis_clients.rows)
        self._told = None if cluster else self.breaker  # nodes tell it themselves
        self._link = None if cluster else RowLink(url, on_read, breaker=self.breaker)
        self.named = None if self._link is None else SingleRows(self._link)
        """Reads rows of a single server by name; None on a cluster."""
        self._rows = self.named or ClusterRows(self._reads, on_read)

    @property
    def breakers(self) -> list[Breaker]:
        """The store's, and of a cluster those of the nodes."""
        nodes = None if self._cluster is None else self._cluster.nodes
        return [self.breaker, *(nodes or ())]

    def is_down(self, row: RowId) -> bool:
        """Whether the node of a cluster that has a row is known not to answer."""
        return self._cluster is not None and self._cluster.is_down(hash_of(row))

    def has_members_down(self, wanted: Sequence[MemberSet]) -> bool:
        """Whether a node that has members of any set is known not to answer."""
        reads = self._cluster
        return reads is not None and any(
            reads.is_down(members_key(one.source, one.message_key)) for one in wanted
        )

    def pinned(self) -> WarmStore:
        return self

    async def rows(self, wanted: Sequence[RowId]) -> TieredRows:
        """The packed rows, read together with those of all requests that wait in this moment."""
        return TieredRows(await self._rows.read(wanted), Tier.WARM)

    async def members(
        self, wanted: Sequence[MemberSet], most: int
    ) -> list[list[Key] | Unavailable]:
        """The entities of each set. Raises `TooLarge` when there are more than `most`."""
        keys = [members_key(one.source, one.message_key) for one in wanted]
        counts = await ask_all(self._reads, [("SCARD", key) for key in keys], self._told)
        check_members(counts, wanted, most)
        counted = [n for n, count in enumerate(counts) if not isinstance(count, Unavailable)]
        smembers = [("SMEMBERS", keys[n]) for n in counted]
        sets = await ask_all(self._reads, smembers, self._told)
        found: list[list[Key] | Unavailable] = [UNAVAILABLE] * len(wanted)
        for n, members in zip(counted, sets, strict=True):
            if not isinstance(members, Unavailable):
                names = sorted(member.decode() for member in members)
                found[n] = [(wanted[n].message_key, *key_values(name)) for name in names]
        return found

    async def last_closed(self, wanted: Sequence[Group]) -> list[Key | Unavailable | None]:
        """The entity of each group that was closed last."""
        keys = [closed_key(group.source, entity_id(group.key)) for group in wanted]
        found = await ask_all(self._reads, [("GET", key) for key in keys], self._told)
        return [
            (group.key[0], *key_values(closed_member(packed)))
            if isinstance(packed, bytes)
            else packed
            for group, packed in zip(wanted, found, strict=True)
        ]

    async def answers(self) -> bool:
        """Whether Redis answers: of a cluster any node that has rows."""
        if self._link is not None:
            return await self._rows.read([NOBODY]) == [None]
        probes = {self._reads.server_of(key): key for key in PROBES}
        commands = [("GET", key) for key in probes.values()]
        found = await self._reads.each(commands)
        return not all(isinstance(answer, Exception) for answer in found)

    async def close(self) -> None:
        if self._link is not None:
            await self._link.close()
        await self._reads.close()
