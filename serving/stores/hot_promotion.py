"""Bringing rows from warm into hot, beside the requests that missed them.

    take leases in hot  ->  read warm  ->  put the rows in, where lease and mark are left

Whoever missed a row has read warm already, and waits for none of it. What is wanted in the meantime
is gathered: a batch is a script, a read and a script, however many rows it has, and few batches are
under way at a time. The row is read again because a lease must be there before warm is read: what
warm stores after that ends the lease (`registry.formats.hot`). The token must be known before, too.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from enum import StrEnum
from itertools import islice
from typing import NamedTuple

from registry.formats.entity_name import entity_id
from registry.formats.hot import HOME_LAYOUT, HOT_HEADER, LEASE_MS, lease_key, mark_key, row_key
from registry.resources import lua
from serving.stores.hot_marks import Marks
from serving.stores.newest_served import HOME as ROW_HOME
from serving.stores.newest_served import has_home
from serving.stores.row_link import RowLink
from serving.stores.row_store import Packed, RowId, RowStore, Tier, Unavailable

logger = logging.getLogger(__name__)

TAKE_LEASES = HOT_HEADER.lua("HOT") + lua("serving.stores", "take_leases")
PROMOTE = HOT_HEADER.lua("HOT") + lua("serving.stores", "promote")

NONCE_BYTES = 16
"""Random bytes of the nonce of a batch."""

BATCH_ROWS = 128
"""Rows of one batch: hot serves no other client while it works on a script."""

MOST_BATCHES = 2
"""Batches that are under way at a time."""

MOST_WAITING = 8_192
"""Rows that wait to be brought in; of one more nothing is known until it is missed again."""


class Outcome(StrEnum):
    """What became of a row that was to be brought into hot."""

    PUT = "put"
    PRESENT = "present"
    """It is there already and believed, or another server is at it."""
    NO_ROW = "no_row"
    """Warm has no such row, or a damaged one, of which it is not known where it comes from."""
    NOT_FED = "not_fed"
    """No worker keeps hot up to date for the partition that it comes from."""
    LOST = "lost"
    """Warm has another row by now, which the worker has put in, or the worker has begun anew."""
    LEARNT = "learnt"
    """The partition that it comes from was not known: it is tried once more."""
    UNANSWERED = "unanswered"
    """A store did not answer, or another one than warm did."""
    DROPPED = "dropped"
    """Too many waited."""


class Promotion:
    """Brings rows of the store `source` into hot, over a link to it.

    `has_source` says whether warm would be read there now, and not what stands in for it, which
    stays out of hot.
    """

    def __init__(
        self,
        link: RowLink,
        marks: Marks,
        source: RowStore,
        has_source: Callable[[], bool] = lambda: True,
    ) -> None:
        self.has_source = has_source
        self._link = link
        self._marks = marks
        self._source = source
        self._waiting: dict[RowId, None] = {}
        self._under_way: set[RowId] = set()
        self._batches: set[asyncio.Task[None]] = set()
        self.outcomes: Counter[Outcome] = Counter()
        """How many rows have had each outcome."""

    def want(self, rows: Iterable[RowId]) -> None:
        """Have rows brought in; nobody waits for it."""
        for row in rows:
            if len(self._waiting) >= MOST_WAITING:
                self.outcomes[Outcome.DROPPED] += 1
            elif row not in self._under_way:
                self._waiting[row] = None
        if len(self._batches) < MOST_BATCHES and self._waiting:
            task = asyncio.create_task(self._work())
            self._batches.add(task)
            task.add_done_callback(self._batches.discard)

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits and nothing is under way."""
        return not self._batches

    async def promote(self, rows: Sequence[RowId]) -> list[Outcome]:
        """Bring some rows in, at most `BATCH_ROWS`; says what became of each."""
        outcomes = await self._promote(rows)
        self.outcomes.update(outcomes)
        return outcomes

    async def close(self) -> None:
        """Stop; what is under way is left, and its leases end by themselves."""
        self._waiting.clear()
        for task in self._batches:
            task.cancel()
        await asyncio.gather(*self._batches, return_exceptions=True)

    async def _work(self) -> None:
        while self._waiting:
            batch = list(islice(self._waiting, BATCH_ROWS))
            for row in batch:
                del self._waiting[row]
            self._under_way.update(batch)
            try:
                await self.promote(batch)
            finally:
                self._under_way.difference_update(batch)

    async def _promote(self, rows: Sequence[RowId], is_again: bool = False) -> list[Outcome]:
        if not self.has_source():
            return [Outcome.UNANSWERED] * len(rows)
        nonce = os.urandom(NONCE_BYTES)
        self._marks.ask(asyncio.get_running_loop().time())
        taken = await self._link.call(_take_leases(nonce, rows))
        if isinstance(taken, Unavailable):
            return [Outcome.UNANSWERED] * len(rows)
        outcomes = [Outcome.PRESENT] * len(rows)
        leased = [number for number, is_taken in enumerate(taken) if is_taken]
        if not leased:
            return outcomes
        tokens = self._marks.tokens  # those of before warm is read: later ones say nothing of it
        found = await self._source.rows([rows[number] for number in leased])
        known = self._marks.homes()
        puts = [
            self._put(rows[number], found.rows[index], found.tier_of(index), tokens, known)
            for index, number in enumerate(leased)
        ]
        done = await self._link.call(_promote(nonce, puts))
        if isinstance(done, Unavailable):
            done = [Outcome.UNANSWERED] * len(puts)
        for number, put, is_put in zip(leased, puts, done, strict=True):
            outcomes[number] = Outcome.PUT if is_put == 1 else is_put or put.otherwise
        again = [number for number, outcome in enumerate(outcomes) if outcome is Outcome.LEARNT]
        if again and not is_again:  # of partitions that were not known
            found_again = await self._promote([rows[number] for number in again], is_again=True)
            for number, outcome in zip(again, found_again, strict=True):
                outcomes[number] = outcome
        return outcomes

    def _put(
        self,
        id: RowId,
        row: Packed,
        tier: Tier,
        tokens: Mapping[bytes, bytes],
        known: Collection[bytes],
    ) -> _Put:
        """What is to be put in of a row that warm, or another tier, has answered."""
        if row is None or (isinstance(row, bytes) and not has_home(row)):
            return _Put(id, b"", None, Outcome.NO_ROW)
        if isinstance(row, Unavailable) or tier is not Tier.WARM:
            return _Put(id, b"", None, Outcome.UNANSWERED)
        home = row[ROW_HOME]
        token = tokens.get(home)
        if token is not None:
            return _Put(id, row, token, Outcome.LOST)
        self._marks.learn(home)
        return _Put(id, b"", None, Outcome.NOT_FED if home in known else Outcome.LEARNT)


class _Put(NamedTuple):
    """A leased row with the token under which it is put in; without one only its lease ends.

    `otherwise` is what became of it where it is not put in.
    """

    id: RowId
    row: bytes
    token: bytes | None
    otherwise: Outcome


def _take_leases(nonce: bytes, rows: Sequence[RowId]) -> list[str | bytes]:
    keys: list[str | bytes] = []
    for source, entity in rows:
        name = entity_id(entity)
        keys += (lease_key(source, name), row_key(source, name))
    return ["EVAL", TAKE_LEASES, str(len(keys)), *keys, nonce, str(LEASE_MS)]


def _promote(nonce: bytes, puts: Sequence[_Put]) -> list[str | bytes]:
    keys: list[str | bytes] = []
    values: list[bytes] = []
    for (source, entity), row, token, _ in puts:
        name = entity_id(entity)
        mark = "" if token is None else mark_key(*HOME_LAYOUT.struct.unpack(row[ROW_HOME]))
        keys += (lease_key(source, name), row_key(source, name), mark)
        values.append(b"" if token is None else token + row)
    return ["EVAL", PROMOTE, str(len(keys)), *keys, nonce, *values]
