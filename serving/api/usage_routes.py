"""The route that says who reads a feature: from Postgres, where servers store what they count."""

from __future__ import annotations

import re

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from registry.lifecycle.usage_recording import RETENTION_DAYS
from serving.api.catalog_routes import FEATURE
from serving.errors import InvalidRequest
from serving.watch.catalog import CatalogWatch
from serving.watch.usage_store import UsageStore

DAYS = 30
"""Days that are told of unless a request says otherwise."""

WHOLE_NUMBER = re.compile(r"[0-9]{1,4}")


class UsageRoutes:
    """Answers from what `store` reads, of features of the catalog."""

    def __init__(self, catalog: CatalogWatch, store: UsageStore) -> None:
        self._catalog = catalog
        self._store = store

    def routes(self) -> list[Route]:
        """The routes."""
        return [Route(f"{FEATURE}/usage", self.usage)]

    async def usage(self, request: Request) -> Response:
        """The usage of all versions of a feature, which is named by name, pin or alias.

        Raises `InvalidRequest`, `UnknownFeature`, `NotReady` and `Overloaded`.
        """
        days = _days(request.query_params.multi_items())
        feature = self._catalog.names.feature(request.path_params["name"])
        found = await self._store.of_feature(feature.name, days)
        return Response(msgspec.json.encode(found), media_type="application/json")


def _days(given: list[tuple[str, str]]) -> int:
    """The days that are asked for. Raises `InvalidRequest`."""
    if not given:
        return DAYS
    names, values = zip(*given, strict=True)
    if names == ("days",) and WHOLE_NUMBER.fullmatch(values[0]):
        days = int(values[0])
        if 1 <= days <= RETENTION_DAYS:
            return days
    raise InvalidRequest(
        f"this route takes ?days=, a whole number from 1 to {RETENTION_DAYS}, once, and nothing "
        "else behind a question mark"
    )
