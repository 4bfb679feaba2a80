"""Reads of one Redis: commands that each name one key, and an answer or an error for each."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from redis.exceptions import ConnectionError as NoAnswer
from redis.exceptions import RedisError, ResponseError

from serving.stores.breakers import Breaker
from serving.stores.row_store import UNAVAILABLE

logger = logging.getLogger(__name__)

Command = tuple[Any, ...]
"""The name of a command, the key that it reads, and what else it takes."""

MakeClient = Callable[[str], Any]
"""Makes an asyncio client of one server from its URL (`registry.redis_clients`)."""

MAX_ROWS = 5_000
"""Rows of one command: a server serves no other client meanwhile."""

FAILURES = (RedisError, OSError)
"""What a client raises when a server does not answer, or not in time."""

NO_CONNECTION = "No connection available."
"""What redis-py's pool says where all its connections are in use for as long as a read may wait."""


class NotAsked(NoAnswer):
    """A server is known not to answer, and was not asked; that it is has been logged."""


_under_way: set[asyncio.Task[list[Any]]] = set()
"""The event loop alone keeps no task from being collected."""


class RedisReads(Protocol):
    """Reads of a Redis, single or a cluster."""

    def server_of(self, key: str) -> str:
        """The name of the server that has a key, as far as is known: "" for any."""
        ...

    async def each(self, commands: Sequence[Command]) -> list[Any]:
        """An answer to each command; an exception where the server of its key did not answer."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


class SingleReads:
    """The `RedisReads` of a single server."""

    def __init__(self, url: str, make: MakeClient) -> None:
        self._client = make(url)

    def server_of(self, key: str) -> str:
        return ""

    async def each(self, commands: Sequence[Command]) -> list[Any]:
        try:
            return await ask(self._client, commands)
        except FAILURES as error:
            return [error] * len(commands)

    async def close(self) -> None:
        await self._client.aclose()


def is_of_key(reason: str) -> bool:
    """Whether an error says something of the key that was read, and not of the server."""
    return reason.startswith("WRONGTYPE")


def is_of_client(reason: str) -> bool:
    """Whether an error says that too many reads wait here, and nothing was asked of the server."""
    return reason == NO_CONNECTION


async def ask_all(
    reads: RedisReads, commands: Sequence[Command], breaker: Breaker | None = None
) -> list[Any]:
    """An answer to each command, `UNAVAILABLE` where its server gave none; that is logged, unless
    the server was not asked.

    The breaker of the store is told whether any was answered, if the server was asked any; also of
    a read that nobody waits for any more: else a server that hangs would never be found out by
    those whose deadlines are short.
    """
    if not commands:
        return []
    task = asyncio.create_task(_ask_all(reads, commands, breaker))
    _under_way.add(task)
    task.add_done_callback(_under_way.discard)
    return await asyncio.shield(task)


async def _ask_all(
    reads: RedisReads, commands: Sequence[Command], breaker: Breaker | None
) -> list[Any]:
    era = 0 if breaker is None else breaker.era
    answers = await reads.each(commands)
    failed = [a for a in answers if isinstance(a, Exception) and not isinstance(a, NotAsked)]
    if breaker is not None:
        tell(breaker, era, answers)
    if failed:
        what = commands[0][0]
        logger.warning("%d of %d %s failed: %s", len(failed), len(commands), what, failed[0])
    return [UNAVAILABLE if isinstance(answer, Exception) else answer for answer in answers]


def tell(breaker: Breaker, era: int, answers: Sequence[Any], decisive: bool = False) -> None:
    """Tells a breaker whether its server answered any command of a call that began in `era`."""
    failed = [str(answer) for answer in answers if isinstance(answer, Exception)]
    if len(failed) < len(answers) or any(map(is_of_key, failed)):
        breaker.succeeded(era)
    elif of_server := [reason for reason in failed if not is_of_client(reason)]:
        breaker.failed(of_server[0], decisive, era)


async def ask(client: Any, commands: Sequence[Command]) -> list[Any]:
    """The answers of one server, those that are errors too; in one pipeline if there are several.

    Raises `FAILURES` when it does not answer.
    """
    if len(commands) == 1:
        try:
            return [await client.execute_command(*commands[0])]
        except ResponseError as error:
            return [error]
    async with client.pipeline(transaction=False) as pipeline:
        for command in commands:
            pipeline.execute_command(*command)
        answers: list[Any] = await pipeline.execute(raise_on_error=False)
        return answers
