"""The backfill sink: rows that a replay computed, in Postgres, beside those of live."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from uuid import UUID

from pipelines.copy_rows import stage_rows
from pipelines.offline import _load, _rejected, _unsettled
from pipelines.postgres import Database
from pipelines.runs import Batch
from pipelines.state import EntityState
from pipelines.topics import Topic
from registry.definitions import Source
from registry.row import Origin

SETTLE = (
    "SELECT tickwell.settle_entities(%(source)s, %(topic_id)s::uuid, %(partition)s,"
    " %(unsettled)s::text[])"
)
STORE_REJECTED = files("pipelines").joinpath("sql/store_rejected.sql").read_text("utf-8")


class BackfillSink:
    """Stores rows that a replay computed, beside those of live, and moves no watermark.

    With `restores`, `load` gives states from the rows that are there; without, every entity begins
    empty, as it does where the log begins.
    """

    name = "backfill"

    def __init__(self, url: str, schemas: Sequence[int], restores: bool) -> None:
        self._database = Database(url, "tickwell replay")
        self._schemas = list(schemas)
        self._restores = restores
        self.inserted = 0
        self.rejected = 0

    def watermarks(self, topic_id: bytes, partitions: Iterable[int]) -> Mapping[int, int]:
        """None: a replay says itself where it begins."""
        return {}

    def settle(self, topic: Topic) -> int:
        """Nothing to record: a replay reads a topic as it finds it."""
        return topic.partitions

    def load(
        self, source: Source, entities: Sequence[str], depth: int, before: Origin
    ) -> Mapping[str, EntityState]:
        """The states of those of `entities` that have rows from before the run."""
        wanted = entities if self._restores else self._settled_elsewhere(source, entities, before)
        return _load(self._database, self._schemas, source, wanted, depth, before)

    def _settled_elsewhere(
        self, source: Source, entities: Sequence[str], before: Origin
    ) -> Sequence[str]:
        """Entities at home in another partition: their ticks here were rejected, and are again."""
        with self._database.cursor() as cursor:
            cursor.execute(
                "SELECT entity FROM tickwell.entities WHERE source = %s AND entity = ANY (%s)"
                " AND topic_id = %s::uuid AND partition <> %s",
                (
                    source.name,
                    list(entities),
                    str(UUID(bytes=before.topic_id)),
                    before.partition,
                ),
            )
            return [entity for (entity,) in cursor.fetchall()]

    def store(self, batch: Batch) -> Sequence[str]:
        """Store a batch; rows that are there already are compared.

        Returns entities that have their home in another partition. Raises `ParityViolation` and
        `StoreUnavailable`.
        """
        run = {
            "topic_id": str(UUID(bytes=batch.run.topic_id)),
            "partition": batch.run.partition,
            "topic": batch.run.topic,
            "source": batch.source.name,
            "unsettled": _unsettled(batch),
        }
        with self._database.transaction() as cursor:
            stage_rows(cursor, batch)
            cursor.execute(SETTLE, run)
            (conflicts,) = cursor.fetchone()
            if conflicts:
                cursor.connection.rollback()
                return list(conflicts)
            cursor.execute("SELECT tickwell.insert_staged()")
            self.inserted += cursor.fetchone()[0]
            cursor.execute(STORE_REJECTED, {**run, **_rejected(batch.rejected)})
            self.rejected += len(batch.rejected)
        return []

    def close(self) -> None:
        self._database.close()
