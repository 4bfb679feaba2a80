"""The progress of each replay in Postgres: written with the rows, read at the next start."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import and_, case, func, or_, select, update
from sqlalchemy.dialects.postgresql import Insert, insert

from pipelines.kafka.topics import Topic
from pipelines.stores.postgres.transactions import LIMITS, transaction
from registry.database.engine import connect
from registry.database.lake_tables import dropped_offsets
from registry.database.tables import entities, replays, topics, watermarks
from registry.formats.entity_name import SEPARATOR

KEPT = " before"
"""What follows the name of a replay that was begun anew, in the row of what it had stored."""


@dataclass(frozen=True, slots=True)
class Progress:
    """One replay in one partition: begun at `start_offset`, to resume at `next_offset`.

    Its state is in the rows of the partition from offset `restores_since` on; None when it has to
    be computed from the log's beginning.
    """

    start_offset: int
    next_offset: int
    restores_since: int | None


class ReplayProgress:
    """The table `tickwell.replays`, and the other tables that say which rows are stored.

    Close it after use. Methods raise `StoreUnavailable` while Postgres is unavailable.
    """

    def __init__(self, url: str) -> None:
        self._engine = connect(url, **LIMITS, pool_size=1, max_overflow=0)

    def close(self) -> None:
        self._engine.dispose()

    def unfinished(self, replay: str, topic_id: bytes, partition: int) -> Progress | None:
        """The progress of a replay that was begun and is not finished."""
        wanted = select(
            replays.c.start_offset, replays.c.next_offset, replays.c.restores_since
        ).where(
            replays.c.replay == replay,
            replays.c.topic_id == UUID(bytes=topic_id),
            replays.c.partition == partition,
            replays.c.finished_at.is_(None),
        )
        with transaction(self._engine) as connection:
            row = connection.execute(wanted).one_or_none()
        return None if row is None else Progress(*row)

    def reached(self, replay: str, topic_id: bytes, partition: int) -> int | None:
        """The offset up to which a replay is stored, finished or not; None if it never began."""
        wanted = select(replays.c.next_offset).where(
            replays.c.replay == replay,
            replays.c.topic_id == UUID(bytes=topic_id),
            replays.c.partition == partition,
        )
        with transaction(self._engine) as connection:
            return connection.execute(wanted).scalar_one_or_none()

    def known_since(self, topic_id: bytes, partition: int, offset: int) -> int | None:
        """The offset from which on the rows of all ticks before `offset` are stored, or None.

        Live has stored them, or a replay of every entity.
        """
        the_topic = UUID(bytes=topic_id)
        live = select(watermarks.c.next_offset).where(
            watermarks.c.topic_id == the_topic,
            watermarks.c.partition == partition,
            watermarks.c.next_offset >= offset,
        )
        replayed = select(func.min(replays.c.restores_since)).where(
            replays.c.topic_id == the_topic,
            replays.c.partition == partition,
            replays.c.every_entity,
            replays.c.stored_to >= offset,
        )
        with transaction(self._engine) as connection:
            if connection.execute(live).first() is not None:
                return 0
            since: int | None = connection.execute(replayed).scalar_one()
            return since

    def let_go_to(self, topic_id: bytes, partition: int) -> int:
        """The offset from which on rows give whole states: behind all that was let go of."""
        of = dropped_offsets.c
        wanted = select(func.coalesce(func.max(of.next_offset), 0)).where(
            of.topic_id == UUID(bytes=topic_id), of.partition == partition
        )
        with transaction(self._engine) as connection:
            return int(connection.execute(wanted).scalar_one())

    def has_live(self, topic_id: bytes, partition: int) -> bool:
        """Whether live has stored anything of a partition."""
        live = select(1).where(
            watermarks.c.topic_id == UUID(bytes=topic_id), watermarks.c.partition == partition
        )
        with transaction(self._engine) as connection:
            return connection.execute(live).first() is not None

    def has_rows(self, topic_id: bytes, partition: int, before: int) -> bool:
        """Whether live, or a replay, has stored rows of a partition before offset `before`."""
        replayed = select(1).where(
            replays.c.topic_id == UUID(bytes=topic_id),
            replays.c.partition == partition,
            replays.c.start_offset < before,
        )
        if self.has_live(topic_id, partition):
            return True
        with transaction(self._engine) as connection:
            return connection.execute(replayed).first() is not None

    def older_incarnations(self, current: set[bytes]) -> bool:
        """Whether rows of topics other than `current` may be stored."""
        ids = [UUID(bytes=topic_id) for topic_id in current]
        with transaction(self._engine) as connection:
            return any(
                connection.execute(select(1).where(table.c.topic_id.not_in(ids))).first()
                for table in (watermarks, replays)
            )

    def settled_partitions(self, topic_id: bytes) -> int | None:
        """How many partitions a topic had when live first read it."""
        wanted = select(topics.c.partitions).where(topics.c.topic_id == UUID(bytes=topic_id))
        with transaction(self._engine) as connection:
            return connection.execute(wanted).scalar_one_or_none()

    def without_rows(self, keys: set[str]) -> set[str]:
        """Those of the message keys `keys` that have no entity."""
        named = {
            key: or_(
                entities.c.entity == key,
                # P1<separator>AAPL and so on: a range of the names, which are compared by bytes
                and_(
                    entities.c.entity > key + SEPARATOR,
                    entities.c.entity < key + chr(ord(SEPARATOR) + 1),
                ),
            )
            for key in keys
        }
        with transaction(self._engine) as connection:
            return {
                key
                for key, named_so in named.items()
                if connection.execute(select(1).where(named_so)).first() is None
            }

    def begin(
        self,
        replay: str,
        topic: Topic,
        partition: int,
        arguments: str,
        every_entity: bool,
        start: Progress,
    ) -> None:
        """Record that a replay begins, for the first time or again. Its rows stay stored.

        Where these do not say what comes before the next ones, a row of its own keeps how far they
        go: other rules begin after them.
        """
        row = insert(replays).values(
            replay=replay,
            topic_id=UUID(bytes=topic.topic_id),
            partition=partition,
            topic=topic.name,
            arguments=arguments,
            every_entity=every_entity,
            restores_since=start.restores_since,
            start_offset=start.start_offset,
            next_offset=start.next_offset,
            stored_to=start.next_offset,
        )
        meets = and_(
            replays.c.restores_since.is_not(None),
            replays.c.stored_to > row.excluded.stored_to,
        )
        row = row.on_conflict_do_update(
            index_elements=[replays.c.replay, replays.c.topic_id, replays.c.partition],
            set_={
                "restores_since": row.excluded.restores_since,
                "start_offset": row.excluded.start_offset,
                "next_offset": row.excluded.next_offset,
                "stored_to": case((meets, replays.c.stored_to), else_=row.excluded.stored_to),
                "began_at": func.now(),
                "finished_at": None,
            },
        )
        with transaction(self._engine) as connection:
            connection.execute(_kept(replay, topic, partition, start))
            connection.execute(row)

    def finish(self, replay: str, topic_id: bytes, partition: int) -> None:
        """Record that a replay is done; the next one with its arguments begins at the start."""
        done = (
            update(replays)
            .where(
                replays.c.replay == replay,
                replays.c.topic_id == UUID(bytes=topic_id),
                replays.c.partition == partition,
            )
            .values(finished_at=func.now())
        )
        with transaction(self._engine) as connection:
            connection.execute(done)


def _kept(replay: str, topic: Topic, partition: int, start: Progress) -> Insert:
    """Keeps how far a replay has stored rows which are not known to follow all earlier ones."""
    same = [replays.c[name] for name in ("topic_id", "partition", "topic", "arguments")]
    same += [replays.c.every_entity, replays.c.start_offset]
    stored = select(
        replays.c.replay + KEPT, *same, replays.c.stored_to, replays.c.stored_to, func.now()
    ).where(
        replays.c.replay == replay,
        replays.c.topic_id == UUID(bytes=topic.topic_id),
        replays.c.partition == partition,
        replays.c.restores_since.is_(None),
        replays.c.stored_to > start.next_offset,
    )
    names = ["replay", *(column.name for column in same)]
    row = insert(replays).from_select([*names, "next_offset", "stored_to", "finished_at"], stored)
    return row.on_conflict_do_update(
        index_elements=[replays.c.replay, replays.c.topic_id, replays.c.partition],
        set_={
            "start_offset": func.least(replays.c.start_offset, row.excluded.start_offset),
            "next_offset": func.greatest(replays.c.next_offset, row.excluded.next_offset),
            "stored_to": func.greatest(replays.c.stored_to, row.excluded.stored_to),
        },
    )
