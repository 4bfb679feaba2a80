"""Cold: the newest rows in Postgres, in the bytes in which Redis holds them.

It is asked while warm does not answer, then by all requests at once, which share its statements
(`serving.stores.batches`).
"""

from __future__ import annotations

import logging
import struct
import time
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy.exc import SQLAlchemyError

from registry.formats.entity_name import SEPARATOR, entity_id, key_values
from registry.formats.origin import Origin
from registry.formats.row import Row, ValueStatus, pack
from registry.resources import sql
from serving.stores.batches import Batches, BatchLimits
from serving.stores.breakers import Breaker
from serving.stores.member_limit import check_members
from serving.stores.postgres_reads import PostgresReads
from serving.stores.row_store import (
    UNAVAILABLE,
    Group,
    Key,
    MemberSet,
    Packed,
    RowId,
    Tier,
    TieredRows,
    Unavailable,
)
from serving.stores.waiting import waited_for

logger = logging.getLogger(__name__)

NEWEST_ROWS, GROUPS = sql(__package__, "newest_rows"), sql(__package__, "groups")

ROWS = 2, 500, 20_000
"""Statements at the same time for rows, rows of one, and rows that may wait. One of so many rows
takes tens of milliseconds. Of the connections two are left for groups, and for probes."""

GROUPS_AT_ONCE = 1, 50, 1_000
"""The same for groups, each of which may have thousands of entities."""

QUEUE_SECONDS = 0.5
"""Seconds that a request waits for other ones, beside the limit of a statement."""

LATE_NS = 45 * 86_400 * 10**9
"""Nanoseconds back from now in which most entities have a row: in one or two months' partitions."""

END = (1 << 63) - 1
"""After all event times."""

PAST_SEPARATOR = chr(ord(SEPARATOR) + 1)
"""What names begin with that come after all of a group, in place of the separator."""

FAILURES = (SQLAlchemyError, TimeoutError, RuntimeError)
"""What a read raises when Postgres does not answer, or the store is closed."""

Name = tuple[str, str]
"""A source, and the name of an entity, or what the names in a group begin with."""


class FoundGroup(NamedTuple):
    """What is known of a group: how many entities are open, the first of them, the last closed."""

    open: int
    members: list[Key]
    last_closed: Key | None


NO_GROUP = FoundGroup(0, [], None)


class ColdStore:
    """The `RowStore` and `NamedRows` of the database at `url`."""

    def __init__(
        self, url: str, breaker: Breaker | None = None, reads: PostgresReads | None = None
    ) -> None:
        self.breaker = breaker or Breaker("Postgres")
        self._reads = reads or PostgresReads(url)
        seconds = self._reads.seconds + QUEUE_SECONDS
        self._rows = Batches(self._newest, BatchLimits(*ROWS, seconds))
        self._groups = Batches(self._read_groups, BatchLimits(*GROUPS_AT_ONCE, seconds))
        self._most = 0
        """The most members that were ever asked for."""

    def pinned(self) -> ColdStore:
        return self

    def name(self, row: RowId) -> bytes:
        return entity_id(row.entity).encode()

    async def named_rows(
        self, wanted: Sequence[tuple[str, Sequence[bytes]]]
    ) -> list[TieredRows] | Unavailable:
        rows = iter(await self._find([(s, name.decode()) for s, names in wanted for name in names]))
        return [TieredRows([next(rows) for _ in names], Tier.COLD) for _, names in wanted]

    async def rows(self, wanted: Sequence[RowId]) -> TieredRows:
        names = [(row.source, entity_id(row.entity)) for row in wanted]
        return TieredRows(await self._find(names), Tier.COLD)

    async def members(
        self, wanted: Sequence[MemberSet], most: int
    ) -> list[list[Key] | Unavailable]:
        self._most = max(self._most, most)
        found = await self._find_groups([(one.source, one.message_key) for one in wanted])
        counts = [one if isinstance(one, Unavailable) else one.open for one in found]
        check_members(counts, wanted, most)
        return [one if isinstance(one, Unavailable) else one.members for one in found]

    async def last_closed(self, wanted: Sequence[Group]) -> list[Key | Unavailable | None]:
        """Of each group the entity that was closed last and is closed still.

        Where warm names one that has been opened since, it is a member, and nothing depends on it.
        """
        found = await self._find_groups([(one.source, entity_id(one.key)) for one in wanted])
        return [one if isinstance(one, Unavailable) else one.last_closed for one in found]

    async def answers(self) -> bool:
        """Whether Postgres answers."""
        try:
            await self._reads.query("SELECT 1", {})
        except FAILURES:
            return False
        return True

    async def close(self) -> None:
        await self._rows.close()
        await self._groups.close()
        await self._reads.close()

    # ------------------------------------------------------------ rows

    async def _find(self, names: Sequence[Name]) -> list[Packed]:
        if self.breaker.is_open:
            return [UNAVAILABLE] * len(names)
        return await waited_for(self.breaker.store, self._rows.find(names))

    async def _newest(self, names: list[Name]) -> dict[Name, Packed] | None:
        """The packed rows of those entities that have one, `UNAVAILABLE` for one that is damaged.

        Old months are looked at only for what has no row in the new ones.
        """
        late = time.time_ns() - LATE_NS
        found = await self._newest_between(late, END, names)
        rest = [name for name in names if name not in found] if found is not None else []
        older = await self._newest_between(-END, late, rest) if rest else {}
        return None if found is None or older is None else found | older

    async def _newest_between(
        self, since: int, until: int, names: Sequence[Name]
    ) -> dict[Name, Packed] | None:
        """The same, of rows with event times from one moment and before another."""
        found = await self._query(
            NEWEST_ROWS,
            sources=[source for source, _ in names],
            entities=[entity for _, entity in names],
            since=since,
            until=until,
            is_heavy=since == -END or len(names) > ROWS[1],
        )
        if found is None:
            return None
        rows: dict[Name, Packed] = {}
        damaged: list[tuple[Name, Exception]] = []
        for number, *row in found:
            name = names[number - 1]
            try:
                rows[name] = _packed(row)
            except (struct.error, OverflowError, TypeError, ValueError) as error:
                rows[name] = UNAVAILABLE
                damaged.append((name, error))
        if damaged:
            name, why = damaged[0]
            told = "%d of the newest rows in Postgres are damaged, as that of %s %r: %s"
            logger.error(told, len(damaged), *name, why)
        return rows

    # ------------------------------------------------------------ groups

    async def _find_groups(self, names: Sequence[Name]) -> list[FoundGroup | Unavailable]:
        if self.breaker.is_open:
            return [UNAVAILABLE] * len(names)
        found = await waited_for(self.breaker.store, self._groups.find(names))
        return [NO_GROUP if one is None else one for one in found]

    async def _read_groups(self, names: list[Name]) -> dict[Name, FoundGroup] | None:
        """What is known of the groups that have any entity."""
        found = await self._query(
            GROUPS,
            is_heavy=True,
            sources=[source for source, _ in names],
            firsts=[prefix + SEPARATOR for _, prefix in names],
            ends=[prefix + PAST_SEPARATOR for _, prefix in names],
            most=self._most,
            late=time.time_ns() - LATE_NS,
            closed=bytes([ValueStatus.CLOSED]),
        )
        return (
            None
            if found is None
            else {
                names[number - 1]: FoundGroup(
                    count,
                    [key_values(member) for member in members or ()],
                    key_values(closed) if closed else None,
                )
                for number, count, members, closed in found
            }
        )

    # ------------------------------------------------------------ both

    async def _query(self, statement: str, is_heavy: bool, **parameters: Any) -> list[Any] | None:
        """The rows of a statement, None where it is not answered; the breaker is told that.

        A heavy one may take longer than its limit while Postgres answers all others: where it is
        not answered it counts only if a probe is not answered either.
        """
        breaker = self.breaker
        if breaker.is_open:
            return None
        era = breaker.era
        try:
            rows = await self._reads.query(statement, parameters)
        except FAILURES as error:
            reason = _reason(error)
            if is_heavy and await self.answers():
                logger.warning("a large read of Postgres failed: %s", reason)
                return None
            breaker.failed(reason, decisive=isinstance(error, TimeoutError), era=era)
            if not breaker.is_open:  # else it has said so
                logger.warning("rows cannot be read from Postgres: %s", reason)
            return None
        breaker.succeeded(era)
        return rows


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(getattr(error, "orig", error)).strip().split("\n")[0]


def _packed(found: Sequence[Any]) -> bytes:
    """A packed row of the columns of `newest_rows.sql`, without the number."""
    schema_id, event_time, sequence, known_at, topic_id, *rest = found
    partition, offset, index, status, features = rest
    return pack(
        Row(
            schema_id=schema_id,
            event_time=event_time,
            sequence=sequence,
            known_at=known_at,
            origin=Origin(bytes(topic_id), partition, offset, index),
            status=bytes(status),
            values=_doubles(len(status)).unpack(features),
        )
    )


@cache
def _doubles(features: int) -> struct.Struct:
    """Unpacks what `array_send` makes of so many doubles: each has its size before it."""
    return struct.Struct(">20x" + "4xd" * features)
