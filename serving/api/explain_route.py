"""The route that explains a value: its ticks, the arithmetic step by step, and the proof.

Postgres is read in threads of its own, so no read of values waits for an explanation, and beyond a
few at once the next is refused. The kernel is not asked here: a server does not load it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Annotated

import msgspec
from msgspec import Meta, Struct
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serving.api import deadlines
from serving.api.admission import Admission
from serving.api.catalog_routes import FEATURE
from serving.api.deadlines import Deadline, Deadlines
from serving.api.offline import Moment
from serving.api.requests import Name, Text
from serving.errors import InvalidRequest, Overloaded, StoresUnavailable
from serving.features.lookup import Names
from serving.history.moments import known_by
from serving.stores.postgres_reads import PostgresReads
from serving.stores.waiting import waited_for
from serving.watch.catalog import CatalogWatch

CONNECTIONS = 2
"""Explanations that are made at the same time, by one server process."""

SECONDS = 5.0
"""Seconds that one may take of Postgres, with the time that it waits for its turn."""

MOST_AT_ONCE = 8
"""Explanations in hand at once, of one server process."""

MOST_MEMBERS = 500
"""Entities of a sum. Of more the command explains it, which holds up no server."""

HOW = (
    "this route takes ?entity_type= with &entity_value=, both once for each key field of the "
    "entity, and &at=, and nothing else, as ?entity_type=symbol&entity_value=AAPL"
)


class _Asked(Struct):
    """What stands behind the question mark."""

    entity_type: Annotated[list[Name], Meta(min_length=1, max_length=8)]
    entity_value: Annotated[list[Text], Meta(min_length=1, max_length=8)]
    at: Annotated[list[Moment], Meta(max_length=1)] = []


class ExplainRoute:
    """Explains values from what `reads` reads, which it closes in the end."""

    def __init__(
        self,
        catalog: CatalogWatch,
        reads: PostgresReads,
        bounds: tuple[Admission, Deadlines],
        most_at_once: int = MOST_AT_ONCE,
    ) -> None:
        """`bounds` are those of all routes: how much is in hand at once, and for how long."""
        self._catalog = catalog
        self._reads = reads
        self._admission, self._deadlines = bounds
        self._most_at_once = most_at_once
        self._in_hand = 0

    def routes(self) -> list[Route]:
        """The routes."""
        return [Route(f"{FEATURE}/explain", self.explain)]

    async def close(self) -> None:
        """Close the connections."""
        await self._reads.close()

    async def explain(self, request: Request) -> Response:
        """How a feature of an entity came about, now or at a moment.

        Raises `InvalidRequest`, `UnknownFeature`, `RetiredFeature`, `WrongEntity`, `TooLarge`,
        `Overloaded`, `NotReady`, `DeadlineMissed` and `StoresUnavailable`.
        """
        began = asyncio.get_running_loop().time()
        if self._admission.is_full:
            raise self._admission.refuse()
        if self._in_hand >= self._most_at_once:
            self._admission.refused += 1
            raise Overloaded(
                f"the server has {self._in_hand} explanations in hand, which is its limit: ask "
                "again, or use `tickwell explain`"
            )
        named = request.headers.get(deadlines.HEADER.decode())
        ms = self._deadlines.ms_of(None if named is None else named.encode("latin-1"))
        entity, at = _asked(request)
        names, feature = self._catalog.names, request.path_params["name"]
        work = partial(_explained, names=names, feature=feature, entity=entity, at=at)
        self._in_hand += 1
        self._admission.answering += 1
        try:
            deadline = Deadline(began + ms / 1_000, ms)
            found = await self._deadlines.timers.within(deadline, self._read(work))
        finally:
            self._admission.answering -= 1
            self._in_hand -= 1
        return Response(found, media_type="application/json")

    async def _read(self, work: partial[bytes]) -> bytes:
        try:
            return await waited_for("Postgres", self._reads.run(work))
        except (SQLAlchemyError, TimeoutError, RuntimeError):
            raise StoresUnavailable(
                "Postgres, which has the ticks, did not answer: ask again"
            ) from None


def _explained(
    connection: Connection, names: Names, feature: str, entity: Mapping[str, str], at: int | None
) -> bytes:
    from serving.history.explaining import Explainer  # of a library that a server has no need of
    from serving.history.snapshot import snapshot_of

    with snapshot_of(connection, names.catalog) as seen:
        found = Explainer(seen, names, MOST_MEMBERS).explain(feature, entity, at)
    return msgspec.json.encode(found)


def _asked(request: Request) -> tuple[dict[str, str], int | None]:
    """The entity and the moment that are asked for. Raises `InvalidRequest`."""
    given: dict[str, list[str]] = {}
    for name, value in request.query_params.multi_items():
        if name not in _Asked.__struct_fields__:
            raise InvalidRequest(HOW)
        given.setdefault(name, []).append(value)
    try:
        asked = msgspec.convert(given, _Asked)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"{error}: {HOW}") from None
    entity = dict(zip(asked.entity_type, asked.entity_value, strict=False))
    if not len(entity) == len(asked.entity_type) == len(asked.entity_value):
        raise InvalidRequest(HOW)
    return entity, known_by("at", asked.at[0]) if asked.at else None
