"""What Redis holds of entities, read and written beside the product: rows, states and chunks.

`client` is one of a single server or of a cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import redis

from registry.formats.redis_keys import bucket, chunk_field, chunks_key, rows_key, states_key

KeyOf = Callable[[str, int], str]
"""`rows_key`, `states_key` or `chunks_key`."""


def hash_of(client: Any, key: KeyOf, source: str, entity: str) -> str:
    """The key of the hash of a kind that an entity is in."""
    return key(source, bucket(entity, isinstance(client, redis.RedisCluster)))


def stored_row(client: Any, source: str, entity: str) -> Any:
    """The packed row of an entity, None where there is none."""
    return client.hget(hash_of(client, rows_key, source, entity), entity)


def stored_rows(client: Any, source: str, entities: Iterable[str]) -> list[Any]:
    """The packed rows of entities, all of one moment on a single server."""
    names = list(entities)
    if isinstance(client, redis.RedisCluster):
        return [stored_row(client, source, name) for name in names]
    found: list[Any] = client.hmget(rows_key(source, 0), names)
    return found


def all_rows(client: Any, source: str) -> dict[bytes, Any]:
    """Every row of a source in a single server, by entity."""
    found: dict[bytes, Any] = client.hgetall(rows_key(source, 0))
    return found


def everything(client: Any, key: bytes) -> Any:
    """What a key of a single server holds: a string, a set, or a hash by field."""
    kind = client.type(key)
    read = {b"hash": client.hgetall, b"set": client.smembers, b"string": client.get}
    return read[kind](key)


def store_row(client: Any, source: str, entity: str, packed: bytes | str) -> None:
    """Puts a row there."""
    client.hset(hash_of(client, rows_key, source, entity), entity, packed)


def stored_state(client: Any, source: str, entity: str) -> Any:
    """The packed state of an entity, without its chunks; None where there is none."""
    return client.hget(hash_of(client, states_key, source, entity), entity)


def store_state(client: Any, source: str, entity: str, packed: bytes) -> None:
    """Puts a state there."""
    client.hset(hash_of(client, states_key, source, entity), entity, packed)


def stored_chunks(client: Any, source: str, entity: str) -> dict[int, bytes]:
    """The chunks of an entity, whether its state leads to them or not, by their block."""
    begin = chunk_field(entity, 0)[:-1].encode()
    chunks = client.hgetall(hash_of(client, chunks_key, source, entity))
    return {
        int(name[len(begin) :]): chunk for name, chunk in chunks.items() if name.startswith(begin)
    }


def forget(client: Any, source: str, entity: str) -> None:
    """Removes the row, the state and the chunks of an entity."""
    for key in (rows_key, states_key):
        client.hdel(hash_of(client, key, source, entity), entity)
    chunks = [chunk_field(entity, block) for block in stored_chunks(client, source, entity)]
    if chunks:
        client.hdel(hash_of(client, chunks_key, source, entity), *chunks)
