"""A worker verifies a little all the time, beside its work.

    source by source: the next entities ─► a stretch of the rows and blocks of each, recomputed
                                        ─► their rows in Redis, against those of the same ticks
    and in turn with the sources:          some lines of the log of what was served

A round goes through the entities of a source in the order of their names, and where it has come is
on record, so that workers share it and none begins anew when it starts. Of each entity a stretch is
drawn, of the time of which Postgres has all rows: what it keeps of months that it let go of has
gaps. Nothing is looked at while live is behind, and after each look comes a rest of so many times
what it took that all looks take no more than `MOST_SHARE` of the time, whoever's processor it was.

A difference is logged once, and stays on record until somebody has seen to it.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from threading import Event

from pipelines.errors import StoreUnavailable
from pipelines.replay.throttle import Throttle
from pipelines.stores.postgres.connection import Database
from pipelines.stores.postgres.let_go import rows_since
from pipelines.stores.redis.connection import WarmRedis
from pipelines.verify.on_record import OnRecord, on_record, record
from pipelines.verify.online_rows import OnlineRows
from pipelines.verify.parts import ENTITIES, Part, stretches
from pipelines.verify.recomputed import Recomputed
from pipelines.verify.stored_blocks import backfills, read_blocks
from pipelines.verify.stored_rows import read_ticks
from pipelines.verify.verification import ONE_MOMENT
from registry.comparisons import Difference, Place, Tally
from registry.database.month_partitions import HOLD
from registry.definitions import Catalog
from registry.formats.heartbeat import Verified, VerifiedPlace
from registry.resources import sql

logger = logging.getLogger(__name__)

BEGIN_WALK, WALKED = sql(__package__, "begin_walk"), sql(__package__, "walked")
APPLICATION = "tickwell verify beside work"

LOOK_SECONDS = 10.0
"""Seconds between two looks, unless so few entities a minute are asked for that it is longer."""

MOST_SHARE = 0.01
"""The part of the time that looks may take."""

ROWS_OF_ENTITY = 200
"""Rows of an entity, in each row schema, that are recomputed in a look."""

NO_SOURCE = ""
"""The source of what is served, which is made of several ones."""

Subject = tuple[Place, str]
"""What is counted together: a place and a source."""

ServedCheck = Callable[[Catalog, random.Random], Tally]
"""Compares some of what was served; raises `StoreUnavailable` where it cannot."""


@dataclass(frozen=True, slots=True)
class VerifiedStores:
    """Where is what a worker verifies, and has its heartbeats; `cluster`: Redis is a cluster."""

    postgres: str = field(repr=False)
    redis: str = field(repr=False)
    redis_hot: str = field(repr=False)
    cluster: bool = False


class Continual:
    """Verifies about so many entities a minute; `state` may be read by any thread.

    `described` says of a difference in a line which value it is and what to do. `served` compares
    what was served, where this machine has its log.
    """

    def __init__(
        self,
        stores: VerifiedStores,
        entities_a_minute: float,
        described: Callable[[Difference], str],
        served: ServedCheck | None = None,
        chance: random.Random | None = None,
    ) -> None:
        self.state = Verified()
        self._stores = stores
        self._entities = max(1, round(entities_a_minute * LOOK_SECONDS / 60))
        self.pause_seconds = 60 * self._entities / entities_a_minute
        """Seconds from one look to the next."""
        self._described, self._served = described, served
        self._chance = chance or random.Random()
        self._turn = 0
        self._tallies: dict[Subject, Tally] = {}
        self._looked: dict[Subject, float] = {}
        self._seconds = 0.0
        self._recomputed: dict[str, Recomputed] = {}
        self._catalog: Catalog | None = None
        self._why_not: str | None = None

    def run(self, load: Callable[[], Catalog], stop: Event) -> None:
        """Look until `stop` is set.

        `load` gives the definitions of now, the same object while they have not changed, or raises
        `StoreUnavailable`.
        """
        urls = [url for url in (self._stores.redis, self._stores.redis_hot) if url]
        cluster = self._stores.redis if self._stores.cluster else None
        with (
            closing(Database(self._stores.postgres, APPLICATION)) as database,
            closing(WarmRedis(self._stores.redis, self._stores.cluster)) as warm,
            closing(Throttle(urls, cluster)) as throttle,
        ):
            rest = self.begin(database, load)
            while not stop.wait(rest):
                rest = self.pause_seconds
                if throttle.why() is None:
                    rest = max(rest, self.look(database, warm, load) * (1 / MOST_SHARE - 1))

    def begin(self, database: Database, load: Callable[[], Catalog]) -> float:
        """Show what is on record; how many seconds to rest."""
        try:
            self._show(on_record(database), load())
        except StoreUnavailable as error:
            self._cannot(error)
        return self.pause_seconds

    def look(self, database: Database, warm: WarmRedis, load: Callable[[], Catalog]) -> float:
        """Verify what is next; how many seconds that took, 0 where a store was away."""
        began = time.monotonic()
        try:
            catalog = load()
            if catalog is not self._catalog:
                self._catalog, self._recomputed = catalog, {}
            found = self._compared(database, warm, catalog)
            listed = [one for tally in found.values() for one in tally.first]
            for one in record(database, listed) if listed else ():
                logger.error("a value is not what it should be: %s", self._described(one))
            for subject, tally in found.items():
                self._tallies.setdefault(subject, Tally()).add(tally)
                self._looked[subject] = time.time()
            known = on_record(database)
        except StoreUnavailable as error:
            self._cannot(error)
            return 0.0
        took = time.monotonic() - began
        self._why_not = None
        self._seconds += took
        self._show(known, catalog)
        return took

    def _cannot(self, error: StoreUnavailable) -> None:
        """Say once that nothing can be compared, until something could."""
        if self._why_not is None:
            logger.warning("nothing is verified: %s", error)
        self._why_not = str(error)

    def _compared(
        self, database: Database, warm: WarmRedis, catalog: Catalog
    ) -> Mapping[Subject, Tally]:
        sources = _sources(catalog)
        turns = [*sources, *([] if self._served is None else [NO_SOURCE])]
        if not turns:
            return {}
        source = turns[self._turn % len(turns)]
        self._turn += 1
        if source == NO_SOURCE:
            assert self._served is not None
            return {(Place.SERVED, NO_SOURCE): self._served(catalog, self._chance)}
        entities = self._next(database, source)
        found = {(place, source): Tally() for place in (Place.ROWS, Place.BLOCKS, Place.REDIS)}
        if entities:
            with database.transaction() as cursor:
                since = rows_since(cursor, source)
            for part in stretches(database, catalog, source, entities, self._chance, since):
                rows, blocks = self._recompute(database, catalog, source, (part, since))
                found[Place.ROWS, source].add(rows)
                found[Place.BLOCKS, source].add(blocks)
            online = OnlineRows(warm, database, catalog, catalog.sources[source])
            found[Place.REDIS, source].add(online.compare(entities))
        return found

    def _recompute(
        self, database: Database, catalog: Catalog, source: str, drawn: tuple[Part, int | None]
    ) -> tuple[Tally, Tally]:
        """Compare a part, drawn where Postgres has all rows from a time on, while it has them."""
        part, since = drawn
        recomputed = self._recomputed.get(source)
        if recomputed is None:
            recomputed = self._recomputed[source] = Recomputed(catalog, source)
        limits = ROWS_OF_ENTITY, recomputed.before
        with database.transaction() as cursor:
            cursor.execute(ONE_MOMENT)
            cursor.execute(HOLD)
            if rows_since(cursor, source) != since:
                return Tally(), Tally()  # months went meanwhile, and the next round looks again
            made = backfills(cursor, catalog).get(source, {})
            ticks = read_ticks(cursor, recomputed.source, recomputed.schemas, [part], limits)
            blocks = read_blocks(cursor, ticks, made)
        compared = recomputed.compare(ticks, blocks)
        return compared.rows, compared.blocks

    def _next(self, database: Database, source: str) -> Sequence[str]:
        """The entities whose turn it is; behind the last one a round begins anew."""
        with database.transaction() as cursor:
            cursor.execute(BEGIN_WALK, {"source": source})
            (after,) = cursor.fetchone()
            cursor.execute(ENTITIES, {"source": source, "after": after, "many": self._entities})
            found = [entity for (entity,) in cursor.fetchall()]
            to = found[-1] if len(found) == self._entities else ""
            cursor.execute(WALKED, {"source": source, "entity": to})
        return found

    def _show(self, known: OnRecord, catalog: Catalog) -> None:
        places = (Place.ROWS, Place.BLOCKS, Place.REDIS)
        subjects: list[Subject] = [(p, source) for source in _sources(catalog) for p in places]
        if self._served is not None:
            subjects.append((Place.SERVED, NO_SOURCE))
        counts: dict[Subject, int] = dict.fromkeys(subjects, 0)
        for (name, source), number in known.counts.items():
            place = Place(name)
            subject = place, NO_SOURCE if place is Place.SERVED else source
            counts[subject] = counts.get(subject, 0) + number
        self.state = Verified(
            tuple(self._counted(*subject, number) for subject, number in counts.items()),
            self._seconds,
            tuple(self._told(known)),
        )

    def _counted(self, place: Place, source: str, differences: int) -> VerifiedPlace:
        tally = self._tallies.get((place, source), Tally())
        return VerifiedPlace(
            *(place.value, source, tally.values, tally.unverifiable, differences),
            at=self._looked.get((place, source)),
        )

    def _told(self, known: OnRecord) -> list[str]:
        told = [self._described(one) for one in known.first]
        left = sum(known.counts.values()) - len(told)
        return [*told, f"and {left} more differences"] if left else told


def _sources(catalog: Catalog) -> list[str]:
    """The sources that have a version."""
    return sorted({one.source for one in catalog.features.values() if one.source is not None})
