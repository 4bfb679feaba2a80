"""Hot: a bounded, evicting Redis in front of the store that has every row.

What is asked for is read in hot first, together with the marks of the partitions (`hot_marks`), and
believed only under a live one. What hot does not have, or is not believed, is read in the store
behind it, answered, and brought into hot beside the requests (`hot_promotion`): with it the rows of
the entity in the other sources, which are often asked for next.

While hot does not answer all is read behind it, and hot is asked by nobody but a probe. It is
believed again once it has answered, and `DISTRUST_SECONDS` have passed since it did not: by then a
mark that was not renewed has ended.

Members, last closes, and the rows of entities that belong to a group are read behind hot: who is a
member and what it holds must be of one moment, or a position that has moved would count twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

from registry.formats.entity_name import entity_id, key_values
from registry.formats.hot import HOME as HOT_HOME
from registry.formats.hot import TOKEN_BYTES, row_key
from registry.redis_clients import HOT, Limits
from serving.stores.heard_rows import Heard, Judge, Wanted
from serving.stores.hot_marks import MARKS_SECONDS, Marks
from serving.stores.hot_promotion import Promotion
from serving.stores.hot_trust import Trust
from serving.stores.most_read import MostRead
from serving.stores.named_reads import NamedById, read_by_name
from serving.stores.newest_served import HOME, NewestServed, has_home
from serving.stores.pinned_hot import PinnedHot
from serving.stores.resp import bulk
from serving.stores.row_batch import KEYS, Hearer, Values
from serving.stores.row_store import (
    UNAVAILABLE,
    Group,
    Key,
    MemberSet,
    NamedRows,
    Packed,
    RowId,
    RowStore,
    Tier,
    TieredRows,
    Unavailable,
)
from serving.stores.tier_counts import TierCounts
from serving.stores.waiting import waited_for

STORE = "hot Redis"
"""What a request is told that it waited for."""

MOST_NAMES = 20_000
"""Names that are remembered as the store behind hot has them."""

KEY_BEGIN = row_key("", "")[:-1]
"""How the key of every row begins: source and entity follow, with a colon between them."""

Siblings = Callable[[str], Collection[str]]
"""The other sources that have rows of the entities of a source."""


class HotOptions(NamedTuple):
    """How hot is read; `siblings` decides which rows are brought in beside one that was missed."""

    limits: Limits = HOT
    marks_seconds: float = MARKS_SECONDS
    siblings: Siblings = lambda source: ()
    most_read: MostRead | None = None
    """Is told of what is read."""
    has_warm: Callable[[], bool] = lambda: True
    """Whether what is behind hot reads warm now, and not what stands in for it."""


class HotStore:
    """The `RowStore` and `NamedRows` of hot and what is behind it; it connects at the first read.

    Raises ValueError for a URL that redis-py cannot read.
    """

    def __init__(
        self,
        url: str,
        behind: RowStore,
        options: HotOptions | None = None,
        named: NamedRows | None = None,
    ) -> None:
        """`named` is how the store behind hot reads rows by names, where it does."""
        self._behind = behind
        self._named = named or NamedById(behind)
        options = options or HotOptions()
        self._siblings = options.siblings
        self._most_read = options.most_read
        self.trust = Trust(url, options.limits)
        self._link = self.trust.link
        self._marks = Marks(self._link, options.marks_seconds)
        self._newest = NewestServed()
        self._names_behind: dict[bytes, bytes] = {}
        self.promotion = Promotion(self._link, self._marks, behind, options.has_warm)
        self.counts = TierCounts()

    def pinned(self) -> RowStore:
        return PinnedHot(self.rows, self._behind.pinned())

    def name(self, row: RowId) -> bytes:
        return bulk(row_key(row.source, entity_id(row.entity)))

    async def named_rows(
        self, wanted: Wanted, behind: NamedRows | None = None
    ) -> list[TieredRows] | Unavailable:
        """The rows, from hot where they are believed; the others from behind it.

        `behind` is what reads them there for one request, where they belong to one.
        """
        names = [name for _, of in wanted for name in of]
        self.counts.rows += len(names)
        self.counts.asked[Tier.HOT] += len(names)
        if self._most_read is not None:
            self._most_read.note(wanted)
        believed = await self._believed(names) if self.trust.is_given else [None] * len(names)
        if not all(believed):
            return await self._completed(wanted, names, believed, behind)
        self.counts.found[Tier.HOT] += len(names)
        return _split(wanted, believed)

    def ask(self, wanted: Wanted, hearer: Hearer) -> Judge | None:
        if not self.trust.is_given:
            return None
        names = wanted[0][1] if len(wanted) == 1 else [name for _, of in wanted for name in of]
        now = asyncio.get_running_loop().time()
        self._marks.ask(now)
        self._newest.forget(now)
        self._link.read_into([(KEYS, names)], hearer)
        return partial(self._heard, wanted, names)

    def _heard(self, wanted: Wanted, names: Sequence[bytes], answer: Values) -> Heard | None:
        """All rows where each is believed, which count as asked for once they are answered."""
        if isinstance(answer, Unavailable):
            self.trust.lose()
            return None
        (values,) = answer
        live, believed = self._marks.live, []
        for value in values:
            if not isinstance(value, bytes) or value[:TOKEN_BYTES] not in live:
                return None
            believed.append(value[TOKEN_BYTES:])
        newest = self._newest
        if not newest.has_none_of(names) and any(map(newest.is_older, names, believed)):
            return None
        rows = [of.rows for of in _split(wanted, believed)]
        return Heard(rows, Tier.HOT, partial(self._count_heard, wanted, len(names)))

    def _count_heard(self, wanted: Wanted, rows: int) -> None:
        self.counts.rows += rows
        self.counts.asked[Tier.HOT] += rows
        self.counts.found[Tier.HOT] += rows
        if self._most_read is not None:
            self._most_read.note(wanted)

    async def rows(self, wanted: Sequence[RowId], behind: RowStore | None = None) -> TieredRows:
        """The rows in the order of `wanted`, as above; of groups' entities from behind hot.

        `behind` is what is behind hot for one request, where the rows belong to one.
        """
        rows: list[Packed] = [UNAVAILABLE] * len(wanted)
        tiers = [Tier.NONE] * len(wanted)
        alone = [number for number, row in enumerate(wanted) if len(row.entity) == 1]
        grouped = [number for number, row in enumerate(wanted) if len(row.entity) > 1]
        reads: list[tuple[list[int], Coroutine[Any, Any, TieredRows]]] = []
        if alone:
            of_all = self if behind is None else _OfRequest(self, NamedById(behind))
            reads.append((alone, read_by_name(of_all, [wanted[number] for number in alone])))
        if grouped:
            of_groups = [wanted[number] for number in grouped]
            reads.append((grouped, self._grouped(of_groups, behind or self._behind)))
        answers = await asyncio.gather(*(read for _, read in reads))
        for (numbers, _), answer in zip(reads, answers, strict=True):
            for index, number in enumerate(numbers):
                rows[number], tiers[number] = answer.rows[index], answer.tier_of(index)
        return TieredRows(rows, tiers)

    async def members(
        self, wanted: Sequence[MemberSet], most: int
    ) -> list[list[Key] | Unavailable]:
        """The entities of each set. Raises `TooLarge`."""
        return await self._behind.members(wanted, most)

    async def last_closed(self, wanted: Sequence[Group]) -> list[Key | Unavailable | None]:
        """The entity of each group that was closed last."""
        return await self._behind.last_closed(wanted)

    async def close(self) -> None:
        await self.promotion.close()
        await self.trust.close()
        await self._link.close()
        await self._behind.close()

    async def _believed(self, names: Sequence[bytes]) -> list[bytes | None]:
        """Of each row what is believed, None for the others."""
        now = asyncio.get_running_loop().time()
        self._marks.ask(now)
        self._newest.forget(now)
        answer = await waited_for(STORE, self._link.read([(KEYS, names)]))
        if isinstance(answer, Unavailable):
            self.trust.lose()
            return [None] * len(names)
        (values,) = answer
        live = self._marks.live
        try:
            believed = [
                value[TOKEN_BYTES:] if value is not None and value[:TOKEN_BYTES] in live else None  # type: ignore[index]
                for value in values
            ]
        except TypeError:  # some are unavailable
            self.trust.lose()
            return [None] * len(names)
        if not all(believed):
            for row, value in zip(believed, values, strict=True):
                if row is None and isinstance(value, bytes):
                    self._marks.learn(value[HOT_HOME])
        if not self._newest.has_none_of(names):
            for number, (name, row) in enumerate(zip(names, believed, strict=True)):
                if row is not None and self._newest.is_older(name, row):
                    believed[number] = None
        return believed

    async def _completed(
        self,
        wanted: Wanted,
        names: Sequence[bytes],
        believed: Sequence[bytes | None],
        behind: NamedRows | None,
    ) -> list[TieredRows] | Unavailable:
        """All rows, those that are not believed from behind hot."""
        missing: list[list[int]] = []
        begin = 0
        for _, of in wanted:
            end = begin + len(of)
            missing.append([number for number in range(begin, end) if believed[number] is None])
            begin = end
        named, name_of = self._named, self._name_behind
        if behind is not None:
            named, name_of = behind, lambda name: behind.name(row_id(name))
        asked = [
            (source, [name_of(names[number]) for number in numbers])
            for (source, _), numbers in zip(wanted, missing, strict=True)
            if numbers
        ]
        answer = await named.named_rows(asked)
        rows: list[Packed] = list(believed)
        tiers = [Tier.HOT] * len(rows)
        if isinstance(answer, Unavailable):
            if len(rows) == sum(map(len, missing)):
                return UNAVAILABLE
            answer = [TieredRows([UNAVAILABLE] * len(of), Tier.NONE) for _, of in asked]
        answers = iter(answer)
        for (source, _), numbers in zip(wanted, missing, strict=True):
            if numbers:
                found = next(answers)
                for index, number in enumerate(numbers):
                    rows[number], tiers[number] = found.rows[index], found.tier_of(index)
                self._take(source, [names[number] for number in numbers], found)
        self.counts.found[Tier.HOT] += tiers.count(Tier.HOT)
        split = _split(wanted, rows)
        each = iter(tiers)
        return [TieredRows(of.rows, list(islice(each, len(of.rows)))) for of in split]

    async def _grouped(self, wanted: Sequence[RowId], behind: RowStore) -> TieredRows:
        """Rows of entities that belong to a group: all from behind hot."""
        self.counts.rows += len(wanted)
        found = await behind.rows(wanted)
        self._newest.forget(asyncio.get_running_loop().time())
        for index, (row, packed) in enumerate(zip(wanted, found.rows, strict=True)):
            self._count(packed, found.tier_of(index))
            is_warm = found.tier_of(index) is Tier.WARM
            if is_warm and isinstance(packed, bytes) and has_home(packed):
                self._newest.note(self.name(row), packed)
        return found

    def _take(self, source: str, names: Sequence[bytes], found: TieredRows) -> None:
        """Remember what is served from behind hot, and have it brought in."""
        wanted: list[RowId] = []
        marks, is_given = self._marks, self.trust.is_given
        self._newest.forget(asyncio.get_running_loop().time())
        for index, (name, row) in enumerate(zip(names, found.rows, strict=True)):
            tier = found.tier_of(index)
            self._count(row, tier)
            if not isinstance(row, bytes) or tier is not Tier.WARM or not has_home(row):
                continue
            self._newest.note(name, row)
            home = row[HOME]
            if is_given and (home in marks.tokens or not marks.knows(home)):
                entity = row_id(name).entity
                wanted += [RowId(one, entity) for one in (source, *self._siblings(source))]
        if wanted:
            self.promotion.want(wanted)

    def _count(self, row: Packed, tier: Tier) -> None:
        """Count a row that was asked for behind hot."""
        self.counts.asked[Tier.WARM] += 1
        if tier is Tier.COLD:
            self.counts.asked[Tier.COLD] += 1
        if not isinstance(row, Unavailable):
            self.counts.found[tier] += 1

    def _name_behind(self, name: bytes) -> bytes:
        known = self._names_behind.get(name)
        if known is None:
            if len(self._names_behind) >= MOST_NAMES:
                self._names_behind.clear()
            known = self._named.name(row_id(name))
            self._names_behind[name] = known
        return known


class _OfRequest(NamedTuple):
    """The `NamedRows` of hot for one request, and of what is behind it for that."""

    hot: HotStore
    behind: NamedRows

    def name(self, row: RowId) -> bytes:
        return self.hot.name(row)

    def named_rows(self, wanted: Wanted) -> Awaitable[list[TieredRows] | Unavailable]:
        return self.hot.named_rows(wanted, self.behind)


def row_id(name: bytes) -> RowId:
    """The row that has a name of `HotStore.name`."""
    key = name[name.index(b"\n") + 1 : -2].decode()
    source, _, entity = key.removeprefix(KEY_BEGIN).partition(":")
    return RowId(source, key_values(entity))


def _split(wanted: Wanted, rows: Sequence[Packed]) -> list[TieredRows]:
    """The rows of each source, all from hot."""
    if len(wanted) == 1:
        return [TieredRows(rows, Tier.HOT)]
    found, begin = [], 0
    for _, of in wanted:
        end = begin + len(of)
        found.append(TieredRows(rows[begin:end], Tier.HOT))
        begin = end
    return found
