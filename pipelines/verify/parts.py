"""Which ticks are verified: stretches of entities, all of them or a sample.

A sample is of entities and days: `seed` decides which, so it can be drawn again. Of an entity each
day between its first and its last tick is as likely as another; one without ticks stands for the
next one that has some.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from pipelines.stores.postgres.connection import Database
from registry.definitions import Catalog
from registry.resources import sql

ENTITIES, DRAWN = sql(__package__, "entities"), sql(__package__, "drawn")
EXTENT, FROM_DAY = sql(__package__, "extent"), sql(__package__, "from_day")

DAY_NS = 86_400 * 10**9
BEFORE_ALL, AFTER_ALL = -(2**63), 2**63 - 1
"""Times before and after those of all ticks."""

ENTITIES_A_PAGE = 4_096


class Part(NamedTuple):
    """Ticks of an entity behind a time and a sequence, and before a time; nanoseconds UTC."""

    entity: str
    after_time: int = BEFORE_ALL
    after_sequence: int = 0
    past_time: int = AFTER_ALL

    @property
    def is_from_beginning(self) -> bool:
        """Whether no tick lies before it."""
        return self.after_time == BEFORE_ALL


def whole(database: Database, source: str, since: int | None) -> Iterator[Part]:
    """All ticks of a source from a time on, entity by entity. Raises `StoreUnavailable`."""
    last: str | None = None
    after = (BEFORE_ALL, 0) if since is None else (since, -1)
    while True:
        wanted = {"source": source, "after": last, "many": ENTITIES_A_PAGE}
        with database.transaction() as cursor:
            cursor.execute(ENTITIES, wanted)
            page = [entity for (entity,) in cursor.fetchall()]
        yield from (Part(entity, *after) for entity in page)
        if len(page) < ENTITIES_A_PAGE:
            return
        last = page[-1]


def sample(
    database: Database,
    catalog: Catalog,
    number: int,
    seed: str,
    begins: Mapping[str, int | None],
) -> dict[str, list[Part]]:
    """So many days of entities of all sources, or fewer where there are not so many.

    Of a source no ticks before the time at which it `begins` count. By source, each once. Raises
    `StoreUnavailable`.
    """
    with database.transaction() as cursor:
        cursor.execute(DRAWN, {"seed": seed, "number": number})
        drawn: list[tuple[str, str]] = [(source, entity) for source, entity in cursor.fetchall()]
    found: dict[str, list[Part]] = {}
    draws = (one for _ in range(number) for one in drawn)  # each again, for another day
    for start in range(0, number, ENTITIES_A_PAGE):
        some = list(islice(draws, min(ENTITIES_A_PAGE, number - start)))
        by_source: dict[str, list[str]] = {}
        for source, entity in some:
            by_source.setdefault(source, []).append(entity)
        for source, entities in by_source.items():
            if source in catalog.sources:
                chance = random.Random(f"{seed}/{source}/{start}")
                days = _days(
                    database, _schemas(catalog, source), entities, chance, begins.get(source)
                )
                found.setdefault(source, []).extend(days)
    return {source: list(dict.fromkeys(parts)) for source, parts in found.items()}


def stretches(
    database: Database,
    catalog: Catalog,
    source: str,
    entities: Sequence[str],
    chance: random.Random,
    since: int | None,
) -> list[Part]:
    """Of each entity the ticks from a moment on that lies between its first and its last one.

    No ticks before the time `since` count. Raises `StoreUnavailable`.
    """

    def begin(first: int, last: int) -> int | None:
        first = first if since is None else max(first, since)
        return chance.randint(first, last) if first <= last else None

    found = _ticks_from(database, _schemas(catalog, source), entities, begin)
    return [Part(entity, time, -1) for entity, _, time in found]


def _days(
    database: Database,
    schemas: Sequence[int],
    entities: Sequence[str],
    chance: random.Random,
    since: int | None,
) -> Iterator[Part]:
    def begin(first: int, last: int) -> int | None:
        first = first if since is None else max(first, since)
        if first > last:
            return None
        day = chance.randint(first // DAY_NS, last // DAY_NS)
        return max(day * DAY_NS, first)

    for entity, begins, time in _ticks_from(database, schemas, entities, begin):
        day = time // DAY_NS
        yield Part(entity, max(day * DAY_NS, begins), -1, (day + 1) * DAY_NS)


def _ticks_from(
    database: Database,
    schemas: Sequence[int],
    entities: Sequence[str],
    begin_of: Callable[[int, int], int | None],
) -> Iterator[tuple[str, int, int]]:
    """Entities, each with a moment, and the event time of its first tick from then on.

    The moment is chosen by the times of its first and its last tick, or there is none.
    """
    wanted = {"entities": list(entities), "schemas": list(schemas)}
    with database.transaction() as cursor:
        cursor.execute(EXTENT, wanted)
        extents = {number: (first, last) for number, first, last in cursor.fetchall()}
        begins = []
        for number, entity in enumerate(entities, 1):
            begin = begin_of(*extents[number]) if number in extents else None
            if begin is not None:
                begins.append((entity, begin))
        wanted |= {
            "entities": [entity for entity, _ in begins],
            "begins": [begin for _, begin in begins],
        }
        cursor.execute(FROM_DAY, wanted)
        times = dict(cursor.fetchall())
    for number, (entity, begin) in enumerate(begins, 1):
        if number in times:
            yield entity, begin, times[number]


def _schemas(catalog: Catalog, source: str) -> list[int]:
    return sorted(one.id for one in catalog.schemas.values() if one.source == source)
