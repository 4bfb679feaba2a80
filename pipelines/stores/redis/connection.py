"""The connection to warm, the Redis or Redis Cluster that holds every entity."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from redis.commands.core import Script

from pipelines.stores.redis import scripts
from pipelines.stores.redis.client import answers, open_warm
from registry.formats.redis_keys import bucket

ENTITIES_A_CALL = 500
"""Entities that one script reads or writes: Redis does nothing else meanwhile, about 1 ms."""


class WarmRedis:
    """The Redis at `url`, connected at the first call; with `cluster` a Redis Cluster.

    On a cluster all keys of a call must be of one hash slot. A script reads or writes at most
    `entities_a_call` entities. Methods raise `StoreUnavailable`.
    """

    def __init__(
        self, url: str, cluster: bool = False, entities_a_call: int = ENTITIES_A_CALL
    ) -> None:
        self.cluster = cluster
        self.entities_a_call = entities_a_call
        self._url = url
        self._life = b""
        self._client: Any = None
        self._scripts: dict[str, Script] = {}

    def connect(self) -> Any:
        """The client. The first call asks a cluster for its nodes, a single server for its life."""
        if self._client is None:
            client = open_warm(self._url, self.cluster)
            if not self.cluster:
                with answers():
                    self._life = Script(client, scripts.ASK_LIFE)()
            self._client = client
        return self._client

    @property
    def life(self) -> bytes:
        """The life of the server (`lua/life.lua`) that everything read so far belongs to.

        It is b"" on a cluster, where each node has a life of its own.
        """
        self.connect()
        return self._life

    def begin_life(self, life: bytes) -> None:
        """What is read from now on belongs to another life."""
        self._life = life

    def run(self, script: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """What one of `scripts` answers."""
        client = self.connect()
        known = self._scripts.get(script)
        if known is None:
            known = self._scripts[script] = Script(client, script)
        with answers():
            return known(keys=keys, args=arguments)

    def get(self, key: str) -> bytes | None:
        """The value of a key, None for no value."""
        client = self.connect()
        with answers():
            value: bytes | None = client.get(key)
            return value

    def groups(self, entities: Sequence[str]) -> Iterator[Sequence[str]]:
        """The entities in groups that one call may hold; on a cluster each shares a hash slot."""
        groups: Iterable[list[str]] = [list(entities)]
        if self.cluster:
            by_bucket: dict[int, list[str]] = defaultdict(list)
            for entity in entities:
                by_bucket[bucket(entity)].append(entity)
            groups = by_bucket.values()
        for group in groups:
            for start in range(0, len(group), self.entities_a_call):
                yield group[start : start + self.entities_a_call]

    def close(self) -> None:
        """Close the connections, if there are any."""
        if self._client is not None:
            self._client.close()
