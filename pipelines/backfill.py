"""The backfill sink: rows that a replay computed, in Postgres, beside those of live."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from uuid import UUID

from pipelines.offline import Database, _identity, _load, _rejected
from pipelines.runs import Batch
from pipelines.staging import stage
from pipelines.state import EntityState
from pipelines.topics import Topic
from registry.definitions import Source
from registry.row import Origin

STORE_ROWS = files("pipelines").joinpath("sql/store_rows.sql").read_text("utf-8")
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
        with self._database.cursor() as cursor:
            stage(cursor, batch)
            cursor.execute(STORE_ROWS, _identity(batch))
            conflicts, inserted = cursor.fetchone()
            if not conflicts:
                cursor.execute(
                    STORE_REJECTED,
                    {
                        **_identity(batch),
                        "topic": batch.run.topic,
                        **_rejected(batch.rejected),
                    },
                )
                self.inserted += inserted
                self.rejected += cursor.rowcount
        return list(conflicts)

    def close(self) -> None:
        self._database.close()
