"""Rows carried over in Postgres: one row more of the newest tick, in the newer row schema.

The order of it:

1. The lock of each partition is taken, and given back at once. A run that had begun in an older row
   schema is stored then, and `tickwell.check_schema` refuses later ones: so there are no more
   entities behind from here on than there are now.
2. All entities are looked at, by name, a few at a time. Of those whose newest row is in an older
   row schema the windows are loaded, and the row is written.
3. That it is done is noted.

Nothing is compared with what live stores meanwhile, and live waits for nothing: the row of a tick
is a function of the log up to that tick, and where live has stored a later one, that is the newer
row all the same. Killed in between, it begins again, and finds less to do.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping, Sequence
from typing import Any
from uuid import UUID

import psycopg2

from pipelines.compute.entity_names import EntityNames
from pipelines.compute.run_computation import RunComputation
from pipelines.stores.carried_rows import Home
from pipelines.stores.postgres.changed_days import change_days
from pipelines.stores.postgres.connection import LOCK_TIMEOUT_MS, Database
from pipelines.stores.postgres.offline_sink import LOCK, PATIENCE_MS
from pipelines.stores.postgres.states_from_rows import load_states
from registry.definitions import RowSchema
from registry.formats.origin import Origin
from registry.resources import sql

BEHIND, STORE_CARRIED = sql(__package__, "behind"), sql(__package__, "store_carried")
CARRIED_OVER = sql(__package__, "carried_over")
FINISH = (
    "INSERT INTO tickwell.carried_over (topic_id, partition, schema_id)"
    " VALUES (%(topic_id)s::uuid, %(partition)s, %(schema)s) ON CONFLICT DO NOTHING"
)

ENTITIES_A_PIECE = 200
"""Entities that are looked at by one statement."""

LATEST = 2**62
"""An offset beyond all that is stored."""


class CarriedOfflineRows:
    """Carries rows over in the Postgres at `url`, by a connection of its own."""

    def __init__(
        self,
        url: str,
        application_name: str = "tickwell",
        entities_a_piece: int = ENTITIES_A_PIECE,
    ) -> None:
        self._database = Database(url, application_name, LOCK_TIMEOUT_MS)
        self._entities_a_piece = entities_a_piece

    def unfinished(self, schema: RowSchema, homes: Collection[Home]) -> Sequence[Home]:
        """Those of `homes` in which rows may have to be carried over into `schema`."""
        finished = set[tuple[bytes, int]]()
        with self._database.transaction() as cursor:
            for topic_id in {home.topic_id for home in homes}:
                cursor.execute(CARRIED_OVER, {**_topic(topic_id), "schema": schema.id})
                finished |= {(topic_id, partition) for (partition,) in cursor.fetchall()}
        return [home for home in homes if (home.topic_id, home.partition) not in finished]

    def carry(
        self, computation: RunComputation, homes: Sequence[Home]
    ) -> Generator[int, None, None]:
        """Carry rows over; gives how many were written, after each piece."""
        schema = computation.schema
        each = [
            {**_topic(home.topic_id), "partition": home.partition, "patience": PATIENCE_MS}
            for home in homes
        ]
        for home in each:
            with self._database.transaction() as cursor:
                cursor.execute(LOCK, home)
        wanted = {
            **_topic(homes[0].topic_id),
            "source": schema.source,
            "schema": schema.id,
            "partitions": [home.partition for home in homes],
            "many": self._entities_a_piece,
            "after": None,
        }
        while True:
            with self._database.transaction() as cursor:
                cursor.execute(BEHIND, wanted)
                looked_at, wanted["after"], behind = cursor.fetchone()
            yield self._carried(computation, homes[0], behind) if behind else 0
            if looked_at < self._entities_a_piece:
                break
        with self._database.transaction() as cursor:
            for home in each:
                cursor.execute(FINISH, {**home, "schema": schema.id})

    def _carried(self, computation: RunComputation, home: Home, behind: Sequence[str]) -> int:
        """Write the newest rows of entities; returns how many there were not yet."""
        before = Origin(home.topic_id, home.partition, LATEST, 0)
        loaded = load_states(
            *(self._database, computation.source, EntityNames.of(behind)),
            *(computation.depth, before),
        )
        values, states = computation.newest(loaded.states), loaded.states
        rows: Mapping[str, Any] = {
            "source": computation.source.name,
            "schema": computation.schema.id,
            "entities": [behind[index] for index in loaded.which.tolist()],
            "event_times": states.event_time.tolist(),
            "sequences": states.sequence.tolist(),
            # the shortest text of a double is read back as the same double
            "features": [f"{{{','.join(map(repr, each))}}}" for each in values.features.tolist()],
            "statuses": [psycopg2.Binary(status.tobytes()) for status in values.status],
        }
        with self._database.transaction() as cursor:
            cursor.execute(STORE_CARRIED, rows)
            written = int(cursor.rowcount)
            if written:
                where = home.topic_id, home.partition
                name = computation.source.name
                change_days(cursor, name, "carried", *where, states.event_time)
            return written

    def close(self) -> None:
        """Close the connection."""
        self._database.close()


def _topic(topic_id: bytes) -> dict[str, Any]:
    return {"topic_id": str(UUID(bytes=topic_id))}
