"""Answers questions about the past in a process of their own, one at a time."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from pathlib import Path

import msgspec
from starlette.types import Scope

from serving import errors
from serving.api.consumers import ConsumerOf, nobody
from serving.api.deadlines import Deadline, Deadlines
from serving.api.feature_routes import Bounds, Content, FeatureRoute
from serving.api.forms import ARROW, JSON, accepts_arrow
from serving.api.offline import MOST_BODY_BYTES, SIZE_BYTES, OfflineQuestion, OfflineReply
from serving.errors import NotReady, Overloaded, ServingError
from serving.metrics import Metrics

PATH = "/features/offline"
DEADLINE_MS = 60_000
"""Milliseconds for an answer, unless its client says otherwise."""

BODY_SECONDS = 30.0
"""Seconds in which the body of a question must come: it may be large."""

END_SECONDS = 2.0

ALLOCATES = {"ARROW_DEFAULT_MEMORY_POOL": "system"}
"""Lets Arrow set no memory aside, of which it takes a GiB by default: what a process may have is
bounded."""


class OfflineProcess:
    """Asks a process about the database at `postgres`, and the lake in the folder `lake`.

    It is started by the first question. Where one is not answered in time, or its client goes away,
    the process is ended with it.
    """

    def __init__(self, postgres: str, lake: Path | None = None) -> None:
        self._postgres = postgres
        self._lake = None if lake is None else str(lake)
        self._process: Process | None = None
        self._asking = False

    async def answer(self, scope: Scope, body: bytes, deadline: Deadline) -> Content:
        """The answer to a request.

        Raises `Overloaded` while another one is answered, `DeadlineMissed`, `NotReady`,
        `StoresUnavailable`, and what is wrong with the question.
        """
        if self._asking:
            raise Overloaded(
                "the server joins one training set at a time, and one is under way: ask again, or "
                "use `tickwell training-set build`"
            )
        wants_arrow = accepts_arrow(scope)
        kinds = [value for name, value in scope["headers"] if name == b"content-type"]
        question = OfflineQuestion(
            postgres=self._postgres,
            lake=self._lake,
            content_type=kinds[0].decode("latin-1") if kinds else "",
            query=scope["query_string"].decode("latin-1"),
            wants_arrow=wants_arrow,
            body=body,
        )
        self._asking = True
        try:
            async with asyncio.timeout_at(deadline.at):
                reply = await self._asked(msgspec.msgpack.encode(question))
        except TimeoutError as error:
            raise deadline.missed(error) from None
        finally:
            self._asking = False
        if reply.error is not None:
            raise _error(reply)
        return reply.content, ARROW if wants_arrow else JSON, ()

    async def _asked(self, message: bytes) -> OfflineReply:
        process = self._process
        if process is None or process.returncode is not None:
            process = self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "serving.api.offline_child"),
                stdin=PIPE,
                stdout=PIPE,
                env={**os.environ, **ALLOCATES},
                start_new_session=True,  # Ctrl-C is for the server
            )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(len(message).to_bytes(SIZE_BYTES) + message)
            await process.stdin.drain()
            size = int.from_bytes(await process.stdout.readexactly(SIZE_BYTES))
            encoded = await process.stdout.readexactly(size)
        except (asyncio.IncompleteReadError, OSError):
            await self.close()
            raise NotReady("the join has ended before its answer was there: ask again") from None
        except BaseException:  # what it answers later is to no question
            self._kill()
            raise
        return msgspec.msgpack.decode(encoded, type=OfflineReply)

    async def close(self) -> None:
        """End the process."""
        process = self._process
        self._kill()
        if process is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), END_SECONDS)

    def _kill(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()


def offline_route(
    process: OfflineProcess,
    metrics: Metrics,
    bounds: Bounds,
    compress: bool = False,
    consumer_of: ConsumerOf = nobody,
) -> FeatureRoute:
    """The route of questions about the past. With `compress` large answers are compressed."""
    return FeatureRoute(
        PATH,
        process.answer,
        metrics,
        (bounds[0], Deadlines(DEADLINE_MS)),
        BODY_SECONDS,
        compress,
        consumer_of,
        most_bytes=MOST_BODY_BYTES,
        ends_with_client=True,
    )


def _error(reply: OfflineReply) -> ServingError:
    """The error that the process has told."""
    kind: type[ServingError] = getattr(errors, str(reply.error))
    return kind(reply.detail, **reply.context)
