"""The connection to warm, the Redis or Redis Cluster that holds every entity."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from redis.commands.core import Script
from redis.exceptions import ResponseError

from pipelines.stores.redis.client import answers, open_warm
from pipelines.stores.redis.resp import Command, packed
from registry.formats.redis_keys import bucket

ENTITIES_A_CALL = 512
"""Entities, or chunks, that one command reads or writes: Redis does nothing else meanwhile.

A commit of so many takes 1 to 4 ms. Larger ones make a run no cheaper, and a reader wait longer.
"""


class WarmRedis:
    """The Redis at `url`, connected at the first call; with `cluster` a Redis Cluster.

    On a cluster all keys of a call must be of one hash slot. A command reads or writes at most
    `entities_a_call` entities. Methods raise `StoreUnavailable`.
    """

    def __init__(
        self, url: str, cluster: bool = False, entities_a_call: int = ENTITIES_A_CALL
    ) -> None:
        self.cluster = cluster
        self.entities_a_call = entities_a_call
        self._url = url
        self._client: Any = None
        self._scripts: dict[str, Script] = {}

    def connect(self) -> Any:
        """The client. The first call asks a cluster for its nodes."""
        if self._client is None:
            self._client = open_warm(self._url, self.cluster)
        return self._client

    def run(self, script: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """What one of `scripts` answers."""
        client = self.connect()
        known = self._scripts.get(script)
        if known is None:
            known = self._scripts[script] = Script(client, script)
        with answers():
            return known(keys=keys, args=arguments)

    def exchange(self, commands: Iterable[Command]) -> list[Any]:
        """Send commands one behind the other to a single server, and read all their answers.

        An answer that is an error is the error. The server works on a command while the next one is
        taken from `commands`, and sent.
        """
        pool = self.connect().connection_pool
        with answers():
            connection = pool.get_connection()
        try:
            with answers():
                sent = 0
                for command in commands:
                    # the check of a connection's health would take an answer for its own
                    connection.send_packed_command(packed(command), check_health=not sent)
                    sent += 1
                return [_answer(connection) for _ in range(sent)]
        except BaseException:
            connection.disconnect()  # answers may still come
            raise
        finally:
            pool.release(connection)

    def register(self, script: str) -> str:
        """The name by which `EVALSHA` finds a script; tells a single server the script."""
        client = self.connect()
        with answers():
            name: str = client.script_load(script)
            return name

    def get(self, key: str) -> bytes | None:
        """The value of a key, None for no value."""
        client = self.connect()
        with answers():
            value: bytes | None = client.get(key)
            return value

    def groups(self, entities: Iterable[str]) -> Iterator[tuple[int, Sequence[str]]]:
        """The entities in groups that one call may hold, each with the bucket of its entities."""
        by_bucket: dict[int, list[str]] = defaultdict(list)
        for entity in entities:
            by_bucket[bucket(entity, self.cluster)].append(entity)
        for number, group in by_bucket.items():
            for start in range(0, len(group), self.entities_a_call):
                yield number, group[start : start + self.entities_a_call]

    def close(self) -> None:
        """Close the connections, if there are any."""
        if self._client is not None:
            self._client.close()


def _answer(connection: Any) -> Any:
    try:
        return connection.read_response()
    except ResponseError as error:
        return error
