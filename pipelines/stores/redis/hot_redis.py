"""The connection of a worker to hot: marks, and rows of which hot has an earlier one.

One connection, made at the first call and again after an error. It does not count as use of what it
reads and writes (`CLIENT NO-TOUCH`), or a bounded hot would keep what ticks often rather than what
is asked for.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
from redis.exceptions import RedisError, ResponseError

from pipelines.errors import StoreUnavailable
from pipelines.runtime.array_types import Bytes, Int64s
from pipelines.stores.redis import scripts
from pipelines.stores.redis.resp import COPIED_BYTES, Arguments, Command, Texts, bulk, packed
from registry import redis_clients
from registry.formats.hot import MARK_MS, lease_key, row_key

logger = logging.getLogger(__name__)

ENTITIES_A_COMMAND = 512
"""Entities that one command names: hot does nothing else meanwhile."""

FEW_ENTITIES = 128
"""So many rows are sent whether hot has them or not. To ask first would be a second exchange, and
the thread that feeds may wait milliseconds for its turn after each."""

SCRIPTS = (scripts.FEED, scripts.MARK, scripts.END_MARK)


class Rows(NamedTuple):
    """The newest rows of some entities of a source, `packed` (n, bytes of a row)."""

    source: str
    names: Texts
    packed: Bytes

    def part(self, which: slice) -> Rows:
        """Some that follow each other."""
        return Rows(self.source, self.names.part(which), self.packed[which])

    def only(self, which: Int64s) -> Rows:
        """Those that have these indexes."""
        return Rows(self.source, self.names.only(which), self.packed[which])


class Fed(NamedTuple):
    """Rows of a partition that go into hot under the token of its mark, the later ones last."""

    mark: str
    token: bytes
    rows: Sequence[Rows]


class Mark(NamedTuple):
    """A mark that is to live until `MARK_MS` after `as_of`, by the caller's clock in seconds."""

    key: str
    token: bytes
    as_of: float
    is_new: bool


class HotRedis:
    """The Redis at `url`; one thread calls. Methods raise `StoreUnavailable`.

    `clock` is monotonic, in seconds. A mark ends at a moment of the server's clock: so one that is
    renewed by a command that arrives late, since this process or the server was stopped meanwhile,
    lives no longer for it.
    """

    def __init__(
        self,
        url: str,
        clock: Callable[[], float] = time.monotonic,
        entities_a_command: int = ENTITIES_A_COMMAND,
        few_entities: int = FEW_ENTITIES,
    ) -> None:
        self._url = url
        self._clock = clock
        self._most, self._few = entities_a_command, few_entities
        self._client: Any = None
        self._connection: Any = None
        self._names: dict[str, str] = {}
        """What `EVALSHA` calls each of the scripts."""
        self._ahead = 0.0
        """Milliseconds of the server's clock less those of ours: never more than it really is."""

    def marks(self, marks: Sequence[Mark]) -> list[bool]:
        """Begin and renew marks; returns which of them live."""
        answers = self._ask([self._mark(one) for one in marks])
        received = self._clock()
        for answer in answers:
            if answer is not None:
                self._ahead = int(answer) - 1000 * received
        return [answer is not None for answer in answers]

    def end(self, marks: Iterable[tuple[str, bytes]]) -> None:
        """End marks, by their keys, if they still hold these tokens."""
        self._connect()
        name = self._names[scripts.END_MARK]
        self._ask([(Arguments("EVALSHA", name, 1, key, token),) for key, token in marks])

    def feed(self, fed: Sequence[Fed]) -> list[bool]:
        """Put rows in the place of those that hot has, and of leases.

        Returns False for a partition whose mark is not there with this token any more. Of few rows
        all are sent, in one exchange.
        """
        self._connect()
        if sum(len(rows.names) for one in fed for rows in one.rows) > self._few:
            return [self._feed_what_is_there(*one) for one in fed]
        commands = [self._put(one.mark, one.token, rows) for one in fed for rows in one.rows]
        done = self._ask(commands)
        ends = accumulate(len(one.rows) for one in fed)
        return [all(done[end - len(one.rows) : end]) for one, end in zip(fed, ends, strict=True)]

    def _feed_what_is_there(self, mark: str, token: bytes, fed: Sequence[Rows]) -> bool:
        """The same of many rows of a partition.

        First it is asked which of them hot has, and of which there are leases, because these are
        few: who takes a lease after that reads what warm has now.
        """
        pieces = [piece for rows in fed for piece in self._pieces(rows)]
        asked: list[Command] = []
        for rows in pieces:
            asked.append((_of_each(lease_key, rows, "EXISTS"),))
            asked.append((_of_each(row_key, rows, "MGET", mark),))
        answers = self._ask(asked)
        found = answers[1::2]
        if any(one[0] != token for one in found):
            return False
        leases = self._leases(pieces, answers[::2])
        commands = []
        for rows, (_, *there), leased in zip(pieces, found, leases, strict=True):
            which = [i for i, row in enumerate(there) if row is not None or i in leased]
            if which:
                commands.append(self._put(mark, token, rows.only(np.array(which, np.int64))))
        return all(self._ask(commands))

    def _leases(self, pieces: Sequence[Rows], counts: Sequence[int]) -> list[set[int]]:
        """Which rows have leases; so many were counted."""
        with_leases = [rows for rows, count in zip(pieces, counts, strict=True) if count]
        asked = [(_of_each(lease_key, rows, "MGET"),) for rows in with_leases]
        answers = iter(self._ask(asked))
        return [
            {i for i, lease in enumerate(next(answers)) if lease is not None} if count else set()
            for count in counts
        ]

    def drop(self, rows: Rows) -> None:
        """Remove rows, whatever hot has of these entities, and their leases."""
        for piece in self._pieces(rows):
            self._ask([(_of_each(key, piece, "DEL"),) for key in (lease_key, row_key)])

    def close(self) -> None:
        """Close the connection, if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()
            self._client.connection_pool.release(connection)
        if self._client is not None:
            self._client.close()

    def _mark(self, mark: Mark) -> Command:
        self._connect()
        ends = int(1000 * mark.as_of + self._ahead) + MARK_MS
        first = ("EVALSHA", self._names[scripts.MARK], 1, mark.key)
        return (Arguments(*first, mark.token, ends, MARK_MS, "1" if mark.is_new else ""),)

    def _pieces(self, rows: Rows) -> Iterable[Rows]:
        if len(rows.names) <= self._most:
            return [rows]
        cuts = [slice(at, at + self._most) for at in range(0, len(rows.names), self._most)]
        return [rows.part(cut) for cut in cuts]

    def _put(self, mark: str, token: bytes, rows: Rows) -> Command:
        """The call of `lua/feed.lua`."""
        first = ("EVALSHA", self._names[scripts.FEED], 1 + 2 * len(rows.names), mark)
        command = _of_each(row_key, rows, *first)
        command.texts(rows.names, lease_key(rows.source, "").encode())
        command.put(bulk(token), 1)
        command.rows(rows.packed)
        return (command,)

    def _ask(self, commands: Sequence[Command]) -> list[Any]:
        """The answers to commands that are sent one behind the other.

        Where one is an error the connection is closed: nothing is known of the others.
        """
        if not commands:
            return []
        try:
            connection = self._connect()
            pieces = [piece for command in commands for piece in packed(command)]
            if sum(map(len, pieces)) <= COPIED_BYTES:
                pieces = [b"".join(pieces)]
            connection.send_packed_command(pieces, check_health=False)
            answers = [connection.read_response() for _ in commands]
        except BaseException as error:
            self._disconnect()
            if isinstance(error, RedisError):
                raise StoreUnavailable(f"the hot Redis: {error}") from error
            raise
        return answers

    def _connect(self) -> Any:
        """The connection, made and prepared if there is none."""
        if self._connection is not None:
            return self._connection
        if self._client is None:
            self._client = redis_clients.feed(self._url)
        try:
            connection = self._client.connection_pool.get_connection()
            self._connection = connection
            self._do_not_touch()
            for script in SCRIPTS:
                self._names[script] = self._call("SCRIPT", "LOAD", script).decode()
            seconds, microseconds = self._call("TIME")
            now = 1000 * int(seconds) + int(microseconds) // 1000
            self._ahead = now - 1000 * self._clock()
        except RedisError as error:
            self._disconnect()
            raise StoreUnavailable(f"the hot Redis: {error}") from error
        return connection

    def _do_not_touch(self) -> None:
        try:
            self._call("CLIENT", "NO-TOUCH", "ON")
        except ResponseError as error:  # before Redis 7.2, or a user without the right
            logger.info("feeding counts as use of what the hot Redis holds: %s", error)

    def _call(self, *arguments: str) -> Any:
        self._connection.send_command(*arguments, check_health=False)
        return self._connection.read_response()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()
            self._client.connection_pool.release(connection)


def _of_each(key: Callable[[str, str], str], rows: Rows, *first: str | int) -> Arguments:
    """A command that begins so, with a key of each of the rows behind it."""
    arguments = Arguments(*first)
    arguments.texts(rows.names, key(rows.source, "").encode())
    return arguments
