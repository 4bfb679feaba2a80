"""Verifies all that is stored, place by place: rows, blocks, Redis, and logs of what was served."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from threading import Event

from sqlalchemy.exc import DBAPIError

from pipelines.errors import StoreUnavailable
from pipelines.replay.throttle import Throttle
from pipelines.stores.postgres.connection import Database
from pipelines.stores.redis.connection import WarmRedis
from pipelines.verify.online_rows import ENTITIES_A_CALL, OnlineRows
from pipelines.verify.parts import sample, whole
from pipelines.verify.verification import APPLICATION, Done, Verification, Wanted
from registry.comparisons import Place, Tally
from registry.definitions import Catalog
from serving.history.served_check import ServedCheck, lines_of
from serving.history.snapshot import LakeReads, snapshot
from tickwell.errors import one_line


@dataclass(frozen=True, slots=True)
class Stores:
    """Where what is verified is: URLs, of which that of Redis may be empty, and directories."""

    postgres: str = field(repr=False)
    redis: str = field(default="", repr=False)
    redis_hot: str = field(default="", repr=False)
    cluster: bool = False
    served_log: Path | None = None
    throttled: bool = True
    lake: Path | None = None

    @property
    def heartbeats(self) -> tuple[str, ...]:
        """Redis servers that have the heartbeats of workers to give way to."""
        urls = (self.redis, self.redis_hot) if self.throttled else ()
        return tuple(url for url in urls if url)


@dataclass
class Verified:
    """What was found in each place, and why a place could not be looked at."""

    tallies: dict[Place, Tally] = field(default_factory=dict)
    away: dict[Place, str] = field(default_factory=dict)
    stopped: bool = False
    loaded: int = 0
    """Rows that were loaded from files, which are not compared."""

    @property
    def values(self) -> int:
        """Values that were compared."""
        return sum(tally.values for tally in self.tallies.values())

    @property
    def differences(self) -> int:
        """Differences that were found."""
        return sum(tally.differences.total() for tally in self.tallies.values())


Report = Callable[[Place, Done], None]


def verify(
    stores: Stores, catalog: Catalog, wanted: Wanted, report: Report, stop: Event
) -> Verified:
    """Verify all places, of which one that is away is noted. Raises nothing that a store raises."""
    found = Verified()
    with suppress(StoreUnavailable):  # the first step says so
        found.loaded = _loaded(stores)
    steps: Mapping[Place, Callable[[], Mapping[Place, Tally]]] = {
        Place.ROWS: lambda: _stored(stores, catalog, wanted, report, stop),
        Place.REDIS: lambda: _online(stores, catalog, wanted, report, stop),
        Place.SERVED: lambda: _served(stores, wanted, report, stop),
    }
    for place, step in steps.items():
        if stop.is_set():
            found.stopped = True
            break
        try:
            found.tallies |= step()
        except (StoreUnavailable, DBAPIError, OSError) as error:
            found.away[place] = one_line(error.orig if isinstance(error, DBAPIError) else error)
    found.stopped = found.stopped or stop.is_set()
    return found


def _loaded(stores: Stores) -> int:
    with (
        closing(Database(stores.postgres, APPLICATION)) as database,
        database.transaction() as cursor,
    ):
        cursor.execute("SELECT coalesce(sum(rows), 0) FROM tickwell.load_partitions")
        return int(cursor.fetchone()[0])


def _stored(
    stores: Stores, catalog: Catalog, wanted: Wanted, report: Report, stop: Event
) -> Mapping[Place, Tally]:
    cluster = stores.redis if stores.cluster else None
    work = Verification(stores.postgres, catalog, wanted, stores.heartbeats, cluster)
    return work.run(lambda done: report(Place.ROWS, done), stop)


def _online(
    stores: Stores, catalog: Catalog, wanted: Wanted, report: Report, stop: Event
) -> Mapping[Place, Tally]:
    if not stores.redis:
        return {}
    tally, entities = Tally(), 0
    with (
        closing(WarmRedis(stores.redis, stores.cluster)) as warm,
        closing(Database(stores.postgres, APPLICATION)) as database,
        closing(Database(stores.postgres, APPLICATION)) as listing,
        closing(Throttle(stores.heartbeats, stores.redis if stores.cluster else None)) as throttle,
    ):
        done = Done(0, None, 0)
        for source, some in _entities(listing, catalog, wanted):
            throttle.wait(
                stop,
                lambda why: report(Place.REDIS, done._replace(waits=why)),  # noqa: B023
            )
            if stop.is_set():
                break
            tally.add(OnlineRows(warm, database, catalog, catalog.sources[source]).compare(some))
            entities += len(some)
            done = Done(entities, None, tally.values)
            report(Place.REDIS, done)
    return {Place.REDIS: tally}


def _entities(
    database: Database, catalog: Catalog, wanted: Wanted
) -> Iterator[tuple[str, Sequence[str]]]:
    """The entities whose rows in Redis are compared, some of a source at a time."""
    if wanted.sample is not None:
        drawn = sample(database, catalog, wanted.sample, wanted.seed, {})
        for source, parts in drawn.items():
            yield source, list(dict.fromkeys(part.entity for part in parts))
        return
    for source in catalog.sources:
        parts_of = whole(database, source, None)
        while some := [part.entity for part in islice(parts_of, ENTITIES_A_CALL)]:
            yield source, some


def _served(stores: Stores, wanted: Wanted, report: Report, stop: Event) -> Mapping[Place, Tally]:
    if stores.served_log is None or not stores.served_log.is_dir():
        return {}
    tally, lines = Tally(), 0
    with snapshot(stores.postgres, sessions=1, lake=LakeReads(stores.lake)) as seen:
        check = ServedCheck(seen)
        drawn = lines_of(stores.served_log, wanted.sample, wanted.seed, wanted.since)
        for some in drawn:
            if stop.is_set():
                break
            tally.add(check.compare(some))
            lines += len(some)
            report(Place.SERVED, Done(lines, None, tally.values))
    return {Place.SERVED: tally}
