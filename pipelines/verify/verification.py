"""Verifies what Postgres has: rows and blocks against what the kernel computes of raw fields.

    parts ─► read (rows, blocks) ─► compute ─► compare
               └── the next ones, meanwhile

Nothing is written. Each piece is read in a transaction of its own that sees one moment: rows never
change, so a longer one would prove no more, and would keep Postgres from cleaning up for live.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from threading import Event
from typing import Any, NamedTuple

from pipelines.errors import StoreUnavailable
from pipelines.replay.throttle import Throttle
from pipelines.stores.postgres.connection import Database
from pipelines.stores.postgres.let_go import rows_since
from pipelines.verify.parts import Part, sample, whole
from pipelines.verify.recomputed import Recomputed
from pipelines.verify.stored_blocks import Backfilled, BlockValues, backfills, read_blocks
from pipelines.verify.stored_rows import StoredTicks, read_ticks
from registry.comparisons import Place, Tally
from registry.database.month_partitions import HOLD
from registry.definitions import Catalog
from registry.resources import sql

APPLICATION = "tickwell verify"
LET_GO = sql(__package__, "let_go")
ONE_MOMENT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"

MEANWHILE = "Postgres let go of months meanwhile: verify once more"

READERS = 2
"""Connections that read at a time: to read takes Postgres longer than everything else here."""

ROWS_A_PIECE = 131_072
"""Rows that a piece has at most in a row schema."""

CELLS_A_PIECE = 4_000_000
"""Values of all versions that are computed of a piece at most: 36 MB."""

MOST_PARTS = 4_096
"""Parts that a statement reads at most."""


class Wanted(NamedTuple):
    """What is to be verified: all (`sample` is None), or so many days of entities.

    Event times before `since`, nanoseconds UTC, do not count.
    """

    sample: int | None
    seed: str
    since: int | None = None


class Done(NamedTuple):
    """How far a verification is: parts that are done, of all where that is known."""

    parts: int
    of: int | None
    values: int
    waits: str | None = None


class _Chosen(NamedTuple):
    """Parts of a source of which Postgres has all rows from a time on, None for all."""

    source: str
    since: int | None
    parts: Iterable[Part]


Report = Callable[[Done], None]
Tallies = Mapping[Place, Tally]


@dataclass(frozen=True, slots=True)
class Verification:
    """Verifies the rows and blocks in the database at `postgres`, by the definitions of `catalog`.

    It pauses while the workers are behind whose heartbeats are in the Redis servers `heartbeats`,
    of which the one at `cluster` is a Redis Cluster. A statement reads at most `rows_a_piece` rows
    of each row schema.
    """

    postgres: str = field(repr=False)
    catalog: Catalog
    wanted: Wanted
    heartbeats: tuple[str, ...] = ()
    cluster: str | None = None
    rows_a_piece: int = ROWS_A_PIECE

    def run(self, report: Report, stop: Event) -> Tallies:
        """Compare until all is done or `stop` is set. Raises `StoreUnavailable`."""
        found = {Place.ROWS: Tally(), Place.BLOCKS: Tally()}
        with ExitStack() as stack:
            listing = stack.enter_context(closing(Database(self.postgres, APPLICATION)))
            reading = [
                stack.enter_context(closing(Database(self.postgres, APPLICATION)))
                for _ in range(READERS)
            ]
            throttle = stack.enter_context(closing(Throttle(self.heartbeats, self.cluster)))
            with listing.transaction() as cursor:
                made = backfills(cursor, self.catalog)
                found[Place.ROWS].unverifiable += _let_go(cursor, self.wanted.since)
            chosen, total = self._chosen(listing)
            done = Done(0, total, 0)
            report(done)
            for source, since, parts in chosen:
                recomputed = Recomputed(self.catalog, source)
                readers = [
                    _Reader(one, recomputed, made.get(source, {}), self._most(recomputed), since)
                    for one in reading
                ]
                for ticks, blocks in _pieces(readers, parts):
                    throttle.wait(stop, lambda why: report(done._replace(waits=why)))  # noqa: B023
                    if stop.is_set():
                        return found
                    counted = recomputed.compare(ticks, blocks)
                    found[Place.ROWS].add(counted.rows)
                    found[Place.BLOCKS].add(counted.blocks)
                    values = sum(tally.values for tally in found.values())
                    whole_parts = len(ticks.parts) - _is_cut(ticks)
                    done = Done(done.parts + whole_parts, total, values)
                    report(done)
        return found

    def _most(self, recomputed: Recomputed) -> int:
        """Rows of a piece: so many that what is computed of them is bounded."""
        return max(1, min(self.rows_a_piece, CELLS_A_PIECE // recomputed.versions))

    def _let_go(self, database: Database, sources: Sequence[str]) -> dict[str, int | None]:
        """The time from which on Postgres has all rows of each source."""
        with database.transaction() as cursor:
            return {source: rows_since(cursor, source) for source in sources}

    def _chosen(self, database: Database) -> tuple[Sequence[_Chosen], int]:
        """The parts of each source that has a version, and how many they are."""
        versions = self.catalog.features.values()
        sources = sorted({one.source for one in versions if one.source is not None})
        number, seed, _ = self.wanted
        let_go = self._let_go(database, sources)
        begins = {one: _latest(self.wanted.since, since) for one, since in let_go.items()}
        if number is not None:
            drawn = sample(database, self.catalog, number, seed, begins)
            listed = [_Chosen(one, let_go[one], drawn[one]) for one in sources if one in drawn]
            return listed, sum(map(len, drawn.values()))
        with database.transaction() as cursor:
            cursor.execute(
                "SELECT count(*) FROM tickwell.entities WHERE source = ANY (%s)", (sources,)
            )
            (total,) = cursor.fetchone()
        listed = [_Chosen(one, let_go[one], whole(database, one, begins[one])) for one in sources]
        return listed, total


class _Reader:
    """Reads the ticks of parts by a connection of its own; one thread at a time."""

    def __init__(
        self,
        database: Database,
        recomputed: Recomputed,
        made: Mapping[int, Backfilled],
        most: int,
        since: int | None,
    ) -> None:
        self._database = database
        self._since = since
        self._recomputed = recomputed
        self._made = made
        self.most = most

    def read(self, parts: Sequence[Part]) -> tuple[StoredTicks, list[BlockValues]]:
        """The rows and the blocks of parts, as far as they fit. Raises `StoreUnavailable`."""
        limits = max(1, self.most // len(parts)), self._recomputed.before
        source, schemas = self._recomputed.source, self._recomputed.schemas
        with self._database.transaction() as cursor:
            cursor.execute(ONE_MOMENT)
            cursor.execute(HOLD)
            if rows_since(cursor, source.name) != self._since:
                raise StoreUnavailable(MEANWHILE)
            ticks = read_ticks(cursor, source, schemas, parts, limits)
            return ticks, read_blocks(cursor, ticks, self._made)


def _latest(*times: int | None) -> int | None:
    return max((one for one in times if one is not None), default=None)


def _let_go(cursor: Any, since: int | None) -> int:
    """How many values from a time on are of rows that Postgres let go of; their files have them."""
    cursor.execute(LET_GO, {"since": since})
    return int(cursor.fetchone()[0])


def _pieces(
    readers: Sequence[_Reader], parts: Iterable[Part]
) -> Iterator[tuple[StoredTicks, list[BlockValues]]]:
    """What is read of parts, piece by piece; the next ones are read meanwhile."""
    coming, left = iter(parts), deque[Part]()
    free = deque(readers)
    waiting = deque[tuple[Future[tuple[StoredTicks, list[BlockValues]]], _Reader]]()
    many = 1  # nobody knows yet how many ticks one has
    with ThreadPoolExecutor(len(readers), "verify") as pool:
        while True:
            while free:
                some = _next(left, coming, many)
                if not some:
                    break
                waiting.append((pool.submit(free[0].read, some), free.popleft()))
            if not waiting:
                return
            reading, reader = waiting.popleft()
            ticks, blocks = reading.result()
            free.append(reader)
            left.extendleft(reversed(ticks.left))
            fit = reader.most // (2 * max(1, ticks.longest))
            many = max(1, min(fit, 2 * many + 2, MOST_PARTS))
            yield ticks, blocks


def _next(left: deque[Part], coming: Iterator[Part], many: int) -> list[Part]:
    some: list[Part] = []
    while len(some) < many:
        part = left.popleft() if left else next(coming, None)
        if part is None:
            break
        some.append(part)
    return some


def _is_cut(ticks: StoredTicks) -> bool:
    """Whether the last of the parts goes on in another piece."""
    return bool(ticks.left) and ticks.left[0].entity == ticks.parts[-1].entity
