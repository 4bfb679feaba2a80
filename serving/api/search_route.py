"""The route that finds features by what is said of them.

Postgres searches, in a few threads of its own (`serving.stores.postgres_reads`): no read of values
waits for a search, and beyond a few searches at once the next is refused.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from psycopg2 import errorcodes
from sqlalchemy.exc import ProgrammingError, SQLAlchemyError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from registry.errors import InvalidSearch
from registry.lifecycle.search import (
    SEARCH_PAGE,
    SEARCH_WORDS,
    Page,
    Question,
    likeness_of,
    nothing,
    page_asked,
    page_of,
    question_of,
    words_asked,
)
from serving.api import deadlines
from serving.api.admission import Admission
from serving.api.deadlines import Deadline, Deadlines
from serving.errors import InvalidRequest, NotReady, Overloaded, StoresUnavailable
from serving.stores.postgres_reads import PostgresReads
from serving.stores.waiting import waited_for

PATH = "/features/search"
CONNECTIONS = 2
"""Searches that Postgres answers at the same time, for one server process."""

MOST_AT_ONCE = 32
"""Searches in hand at once, of one server process: those that wait are answered within a second."""

FEATURES = 20
"""Features of a page where the request does not say how many."""

PARAMETERS = ("q", "limit", "after")
DIGITS = 3
"""Digits of a limit."""


class SearchRoute:
    """Answers searches from `reads`, which it closes in the end."""

    def __init__(
        self,
        reads: PostgresReads,
        bounds: tuple[Admission, Deadlines],
        most_at_once: int = MOST_AT_ONCE,
    ) -> None:
        """`bounds` are those of all routes: how much is in hand at once, and for how long."""
        self._reads = reads
        self._admission, self._deadlines = bounds
        self._most_at_once = most_at_once
        self._in_hand = 0

    def routes(self) -> list[Route]:
        """The routes."""
        return [Route(PATH, self.search)]

    async def close(self) -> None:
        """Close the connections."""
        await self._reads.close()

    async def search(self, request: Request) -> Response:
        """A page of what is found.

        Raises `InvalidRequest`, `Overloaded`, `NotReady`, `DeadlineMissed` and
        `StoresUnavailable`.
        """
        began = asyncio.get_running_loop().time()
        if self._admission.is_full:
            raise self._admission.refuse()
        if self._in_hand >= self._most_at_once:
            self._admission.refused += 1
            raise Overloaded(
                f"the server has {self._in_hand} searches in hand, which is its limit: ask again"
            )
        named = request.headers.get(deadlines.HEADER.decode())
        ms = self._deadlines.ms_of(None if named is None else named.encode("latin-1"))
        question = _question(request)
        self._in_hand += 1
        self._admission.answering += 1
        try:
            deadline = Deadline(began + ms / 1_000, ms)
            found = await self._deadlines.timers.within(deadline, self._page(question))
        finally:
            self._admission.answering -= 1
            self._in_hand -= 1
        return Response(msgspec.json.encode(found), media_type="application/json")

    async def _page(self, question: Question) -> Page:
        likeness = likeness_of(await self._query(SEARCH_WORDS, words_asked(question)))
        if not question.words:
            return nothing(likeness)
        rows = await self._query(SEARCH_PAGE, page_asked(question, likeness))
        try:
            return page_of(question, likeness, rows)
        except InvalidSearch as error:
            raise InvalidRequest(str(error)) from None

    async def _query(self, statement: str, parameters: dict[str, Any]) -> list[Any]:
        try:
            return await waited_for("Postgres", self._reads.query(statement, parameters))
        except (SQLAlchemyError, TimeoutError, RuntimeError) as error:
            if isinstance(error, ProgrammingError) and _is_too_old(error):
                raise NotReady("the database has no search yet: run `tickwell migrate`") from None
            raise StoresUnavailable("Postgres, which searches, did not answer: ask again") from None


def _is_too_old(error: ProgrammingError) -> bool:
    missing = (errorcodes.UNDEFINED_TABLE, errorcodes.UNDEFINED_FUNCTION)
    return getattr(error.orig, "pgcode", None) in missing


def _question(request: Request) -> Question:
    """What is asked. Raises `InvalidRequest`."""
    given: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in PARAMETERS or name in given:
            raise InvalidRequest(
                "this route takes ?q=, &limit= and &after=, each once, and nothing else"
            )
        given[name] = value
    if "q" not in given:
        raise InvalidRequest("say what to look for, as in ?q=volatility")
    limit = given.get("limit", str(FEATURES))
    if not (limit.isascii() and limit.isdigit() and len(limit) <= DIGITS):
        raise InvalidRequest("the limit is the most features of a page: a number from 1 to 100")
    try:
        return question_of(given["q"], int(limit), given.get("after"))
    except InvalidSearch as error:
        raise InvalidRequest(str(error)) from None
