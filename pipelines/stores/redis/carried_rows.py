"""Rows carried over in Redis: the row of the same tick in the newer row schema replaces the older.

The order of it:

1. A token is put into the note of each partition, and a single server is told to refuse runs in an
   older row schema: so no entity falls behind from here on. (On a cluster a script that stores a
   run compares the row schemas of each entity.)
2. All rows are looked at, a few at a time, as the hashes give them. Of those in an older row schema
   the windows are loaded. A row is replaced by a script only if the state that its values were
   computed from is stored still; of an entity that has ticked meanwhile nothing is written.
3. The note becomes the id of the row schema, if it holds the token: it does not where Redis was
   emptied, or entities were restored from Postgres, which may be in any row schema.

Neither states nor watermarks change, so no worker notices. Killed in between, it begins again, and
finds less to do. Where this process feeds hot it feeds these rows as well.
"""

from __future__ import annotations

import logging
import secrets
from collections import defaultdict
from collections.abc import Collection, Generator, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from pipelines.compute.entity_names import EntityNames
from pipelines.compute.run_computation import RunComputation
from pipelines.errors import StateConflict
from pipelines.stores.carried_rows import Home, Homes
from pipelines.stores.redis import scripts
from pipelines.stores.redis.client import answers
from pipelines.stores.redis.connection import WarmRedis
from pipelines.stores.redis.hot_feed import HotFeed
from pipelines.stores.redis.hot_redis import Rows
from pipelines.stores.redis.resp import Texts
from pipelines.stores.redis.restored_states import identity
from pipelines.stores.redis.states import load_columns
from registry.definitions import RowSchema
from registry.formats.origin import Origin
from registry.formats.redis_keys import (
    CLUSTER_BUCKETS,
    carried_key,
    rows_key,
    schema_key,
    states_key,
)
from registry.formats.row import HEADER, row_layout

logger = logging.getLogger(__name__)

ATTEMPTS = 20
"""Attempts at an entity. Each that fails has seen another tick of it; so many are no
coincidence."""


class _Carried(NamedTuple):
    """An entity, the identity of the state that its row was computed from, and the row."""

    entity: str
    identity: bytes
    row: bytes
    home: Home


class CarriedOnlineRows:
    """Carries rows over in a Redis. `hot` is told of them."""

    def __init__(self, redis: WarmRedis, hot: HotFeed | None = None) -> None:
        self._redis = redis
        self._hot = hot

    def unfinished(self, schema: RowSchema, homes: Collection[Home]) -> Sequence[Home]:
        """Those of `homes` in which rows may have to be carried over into `schema`."""
        client, asked = self._redis.connect(), list(homes)
        # the keys of a cluster are in several slots
        get = getattr(client, "mget_nonatomic", client.mget)
        with answers():
            notes = get([_note(home) for home in asked])
        return [
            home
            for home, note in zip(asked, notes, strict=True)
            if not _is_at_least(note, schema.id)
        ]

    def carry(
        self, computation: RunComputation, homes: Sequence[Home]
    ) -> Generator[int, None, None]:
        """Carry rows over; gives how many were written, after each piece."""
        source, schema_id = computation.source.name, computation.schema.id
        token = f"by {secrets.token_hex(8)}"
        for home in homes:
            self._redis.run(scripts.BEGIN_CARRYING, [_note(home)], [token, schema_id])
        if not self._redis.cluster:
            self._redis.run(scripts.RAISE_SCHEMA, [schema_key(source)], [schema_id])
        wanted = Homes(homes)
        for bucket in range(CLUSTER_BUCKETS if self._redis.cluster else 1):
            for names in self._behind(source, bucket, schema_id, wanted):
                yield self._carry(computation, bucket, names, wanted) if names else 0
        for home in homes:
            self._redis.run(scripts.FINISH_CARRYING, [_note(home)], [token, schema_id])

    def _behind(
        self, source: str, bucket: int, schema_id: int, wanted: Homes
    ) -> Iterator[Sequence[str]]:
        """The entities of a bucket whose row is in an older row schema, in pieces."""
        cursor, key, most = 0, rows_key(source, bucket), self._redis.entities_a_call
        while True:
            with answers():
                cursor, found = self._redis.connect().hscan(key, cursor, count=most)
            behind = [
                entity.decode()
                for entity, row in found.items()
                if _home_of(row, schema_id, wanted) is not None
            ]
            for start in range(0, max(len(behind), 1), most):  # a small hash comes whole
                yield behind[start : start + most]
            if cursor == 0:
                return

    def _carry(
        self, computation: RunComputation, bucket: int, behind: Sequence[str], wanted: Homes
    ) -> int:
        """Write the rows of entities of a bucket; returns how many were written."""
        source, written = computation.source.name, 0
        keys = [rows_key(source, bucket), states_key(source, bucket)]
        for _ in range(ATTEMPTS):
            new = self._computed(computation, keys[0], behind, wanted)
            if not new:
                return written
            since = 0.0 if self._hot is None else self._hot.now()
            arguments = [part for one in new for part in one[:3]]
            refused = self._redis.run(scripts.CARRY_OVER, keys, [computation.schema.id, *arguments])
            others = {int(index) - 1 for index in refused}
            done = [one for number, one in enumerate(new) if number not in others]
            self._feed(source, done, since)
            written += len(done)
            behind = [new[number].entity for number in sorted(others)]
            if not behind:
                return written
        raise StateConflict(len(behind), computation.source.topic, new[0].home.partition)

    def _computed(
        self, computation: RunComputation, rows_of: str, names: Sequence[str], wanted: Homes
    ) -> list[_Carried]:
        """The rows of those of some entities that are behind, computed from what is stored.

        One that is stored between its row and its state being read is read again by the caller:
        their origins are others then, and the script refuses it.
        """
        with answers():
            rows = self._redis.connect().hmget(rows_of, names)
        loaded = load_columns(
            self._redis, computation.source, EntityNames.of(names), computation.depth
        )
        values, states = computation.newest(loaded.states), loaded.states
        schema_id, new = computation.schema.id, []
        packed = np.empty(1, row_layout(len(computation.schema.features)).dtype)
        for k, index in enumerate(loaded.which.tolist()):
            row = rows[index]
            home = None if row is None else _home_of(row, schema_id, wanted)
            if home is None:
                continue
            header = np.frombuffer(row, HEADER.dtype, 1)[0]
            for name in HEADER.dtype.names or ():
                packed[name] = header[name]
            packed["schema_id"] = schema_id
            packed["status"], packed["values"] = values.status[k], values.features[k]
            read_with = Origin(
                header["topic_id"].tobytes(),
                *(int(header[name]) for name in ("partition", "offset", "index")),
            )
            state = identity(read_with, int(states.accepted[k]))
            new.append(_Carried(names[index], state, packed.tobytes(), home))
        return new

    def _feed(self, source: str, done: Sequence[_Carried], since: float) -> None:
        """Tell hot of the rows that were written."""
        if self._hot is None:
            return
        by_home: dict[Home, list[_Carried]] = defaultdict(list)
        for one in done:
            by_home[one.home].append(one)
        for home, carried in by_home.items():
            names = EntityNames.of(one.entity for one in carried)
            packed = np.frombuffer(b"".join(one.row for one in carried), np.uint8)
            rows = Rows(source, Texts.of(names.data, names.ends), packed.reshape(len(carried), -1))
            self._hot.carried(*home, rows, since)


def _note(home: Home) -> str:
    return carried_key(home.topic_id, home.partition)


def _is_at_least(note: bytes | None, schema_id: int) -> bool:
    return note is not None and note.isdigit() and int(note) >= schema_id


def _home_of(row: bytes, schema_id: int, wanted: Homes) -> Home | None:
    """Where the entity of a row is at home that is in an older row schema; None for any other."""
    if len(row) < HEADER.size:
        return None
    _, stored, _, _, _, topic_id, partition, *_ = HEADER.struct.unpack_from(row)
    return wanted.of(topic_id, partition) if stored < schema_id else None
