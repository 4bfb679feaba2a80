"""Computes a backfill, and stores its values with how far it has come.

    read ─► compute ─► pack ─► store, with the progress
      └── the next pieces ──┴── meanwhile

It is the kernel of live over the ticks that live accepted, so the bits are those that a replay in a
row schema with the version would store. A transaction compares and moves the progress and stores
the values: killed at any instant, the next process goes on where the last transaction ended. Live
waits for none of it: no row, no lock and no watermark of its own is touched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from threading import Event

from pipelines.backfill.blocks import BlockTicks, copy_blocks, copy_bytes
from pipelines.backfill.computing import APPLICATION, Done, Report, alone, program_of, wait_for_live
from pipelines.backfill.tick_rows import Piece, Position
from pipelines.backfill.ticks import ROWS_A_PIECE, StoredTicks, Wanted, pieces
from pipelines.compute.recomputation import Recomputation
from pipelines.errors import BackfillElsewhere, BackfillEnded
from pipelines.replay.throttle import Throttle
from pipelines.stores.postgres.connection import Database
from pipelines.stores.postgres.let_go import rows_since
from registry.definitions import Catalog
from registry.formats.loaded_rows import loaded
from registry.lifecycle.backfills import Backfill, schemas_to_read
from registry.lifecycle.states import version_of
from registry.resources import sql

PROGRESS, ADVANCE = sql(__package__, "progress"), sql(__package__, "advance")
READERS = 2
"""Connections that read at a time: to read takes Postgres longer than everything else here."""


@dataclass(frozen=True, slots=True)
class BackfillWork:
    """Computes `backfill` in the database at `postgres`, by the definitions of `catalog`.

    It pauses while the workers are behind whose heartbeats are in the Redis servers `heartbeats`,
    of which the one at `cluster` is a Redis Cluster. A statement reads at most `rows_a_piece` rows
    of each row schema.
    """

    postgres: str = field(repr=False)
    catalog: Catalog
    backfill: Backfill
    rows_a_piece: int = ROWS_A_PIECE
    heartbeats: tuple[str, ...] = ()
    cluster: str | None = None

    def run(self, report: Report, stop: Event) -> Done:
        """Compute what is left until all is done or `stop` is set.

        Raises `BackfillElsewhere` where another process computes the same, `BackfillEnded` where it
        was cancelled, `StoreUnavailable` and `StateOfOtherFields`.
        """
        with ExitStack() as stack:
            stack.enter_context(alone(self.postgres, self.backfill))
            storing = stack.enter_context(closing(Database(self.postgres, APPLICATION)))
            position, done = self._progress(storing), Done()
            since = self._since(storing)
            computation = Recomputation(program_of(self.catalog, self.backfill.ref))
            throttle = stack.enter_context(closing(Throttle(self.heartbeats, self.cluster)))
            pool = stack.enter_context(ThreadPoolExecutor(1, "store"))
            stored: Future[Done] | None = None
            wait_for_live(throttle, done, report, stop)
            for piece in self._pieces(stack, computation, position):
                wait_for_live(throttle, done, report, stop)
                if stop.is_set():
                    return done if stored is None else stored.result()
                piece = _from(piece, since)
                blocks = self._blocks(computation, piece)
                if stored is not None:
                    report(done := stored.result())
                    if stop.is_set():
                        return done
                stored = pool.submit(self._stored, storing, position, piece, blocks, done)
                position = piece.following
            if stored is not None:
                report(done := stored.result())
            return done._replace(finished=True)

    def entities(self) -> int:
        """How many entities the version's source has. Raises `StoreUnavailable`."""
        source = version_of(self.catalog, self.backfill.ref).source
        with (
            closing(Database(self.postgres, APPLICATION)) as database,
            database.transaction() as cursor,
        ):
            cursor.execute("SELECT count(*) FROM tickwell.entities WHERE source = %s", (source,))
            return int(cursor.fetchone()[0])

    def _pieces(
        self, stack: ExitStack, computation: Recomputation, position: Position
    ) -> Iterator[Piece]:
        """The ticks of live behind a position, and then those that were loaded.

        They are never in one window: a row of live has what a replay of its log would give it.
        """
        databases = [
            stack.enter_context(closing(Database(self.postgres, APPLICATION)))
            for _ in range(READERS)
        ]
        schemas = schemas_to_read(self.catalog, self.backfill.ref)
        if not position.of_loads:
            yield from pieces(self._readers(databases, computation, schemas, False), position)
            position = Position(None, of_loads=True)
        found = self._with_loads(databases[0], computation.source.name)
        of_loads = {loaded(n): lacks for n, lacks in schemas.items() if loaded(n) in found}
        if of_loads:
            for piece in pieces(self._readers(databases, computation, of_loads, True), position):
                yield piece._replace(entities=0)  # they are counted already

    def _readers(
        self,
        databases: Sequence[Database],
        computation: Recomputation,
        schemas: Mapping[int, bool],
        of_loads: bool,
    ) -> list[StoredTicks]:
        source, field, before = computation.source, computation.field, computation.before
        wanted = Wanted(source, self.backfill, schemas, field, before, of_loads)
        return [StoredTicks(one, wanted, self.rows_a_piece) for one in databases]

    def _with_loads(self, database: Database, source: str) -> set[int]:
        """The ids under which a source has loaded rows."""
        with database.transaction() as cursor:
            cursor.execute(
                "SELECT DISTINCT schema_id FROM tickwell.loads WHERE source = %s", (source,)
            )
            return {loaded(number) for (number,) in cursor.fetchall()}

    def _since(self, database: Database) -> int | None:
        source = version_of(self.catalog, self.backfill.ref).source
        assert source is not None  # a derived version has no backfill
        with database.transaction() as cursor:
            return rows_since(cursor, source)

    def _progress(self, database: Database) -> Position:
        with database.transaction() as cursor:
            cursor.execute(PROGRESS, {"backfill": self.backfill.id})
            found = cursor.fetchone()
        if found is None:
            raise BackfillEnded(self.backfill.ref)
        return Position(*found)

    def _blocks(self, computation: Recomputation, piece: Piece) -> bytes:
        values, which = computation.compute(piece.ticks), piece.computed
        ticks = BlockTicks(
            entity=piece.ticks.entity[which],
            event_time=piece.event_time[which],
            sequence=piece.sequence[which],
            value=values.features[which, 0],
            status=values.status[which, 0],
        )
        own = self.backfill.id
        return copy_bytes(loaded(own) if piece.following.of_loads else own, piece.names, ticks)

    def _stored(
        self, database: Database, position: Position, piece: Piece, blocks: bytes, done: Done
    ) -> Done:
        """Store the values of a piece, and what is done once they are."""
        following = piece.following
        moved = {
            "backfill": self.backfill.id,
            "from_entity": position.entity,
            "from_time": position.event_time,
            "from_sequence": position.sequence,
            "from_loads": position.of_loads,
            "of_loads": following.of_loads,
            "entity": following.entity,
            "event_time": following.event_time,
            "sequence": following.sequence,
            "entities": piece.entities,
            "ticks": len(piece.computed),
        }
        with database.transaction() as cursor:
            cursor.execute(ADVANCE, moved)
            if cursor.rowcount:
                copy_blocks(cursor, blocks)
                return Done(done.entities + piece.entities, done.ticks + len(piece.computed))
        self._progress(database)
        raise BackfillElsewhere(self.backfill.ref)


def _from(piece: Piece, since: int | None) -> Piece:
    """A piece of which no ticks are computed that lie before a time.

    Of these Postgres has let go, and what it still has are the windows of what comes behind them.
    """
    if since is None:
        return piece
    computed = piece.computed
    return piece._replace(computed=computed[piece.event_time[computed] >= since])
