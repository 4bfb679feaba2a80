"""The routes that say which features there are.

Their answers depend on nothing but the catalog, so a client that has one asks whether it still
holds: `ETag` and `If-None-Match`.
"""

from __future__ import annotations

import asyncio
from hashlib import blake2b
from http import HTTPStatus

import msgspec
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from registry.naming import ROUTES
from serving.errors import InvalidRequest
from serving.features.descriptions import (
    all_versions,
    definition_of,
    features_of,
    versions_of,
)
from serving.features.lookup import Names
from serving.watch.catalog import CatalogWatch

FILTERS = ("entity", "tag")


class FeatureName(Convertor[str]):
    """A segment of a path that can name a feature: no route does, and it has a bound."""

    regex = rf"(?!(?:{'|'.join(sorted(ROUTES))})(?:/|$))[^/]{{1,128}}"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("feature", FeatureName())

FEATURE = "/features/{name:feature}"
"""The path of a feature, below which more of it has paths."""


class CatalogRoutes:
    """Answers from the catalog that was read last."""

    def __init__(self, catalog: CatalogWatch) -> None:
        self._catalog = catalog
        self._tagged: tuple[Names, asyncio.Task[str]] | None = None

    def routes(self) -> list[Route]:
        """The routes."""
        return [
            Route("/features", self.features),
            Route(FEATURE, self.feature),
        ]

    async def features(self, request: Request) -> Response:
        """All features by name, or those of a kind of entity or with some tags.

        Raises `InvalidRequest` and `NotReady`.
        """
        asked: dict[str, list[str]] = {name: [] for name in FILTERS}
        for name, value in request.query_params.multi_items():
            if name not in asked or not value:
                raise InvalidRequest(
                    "this route takes ?entity= and ?tag=, as in ?entity=portfolio,symbol&tag=risk, "
                    "and nothing else behind a question mark"
                )
            asked[name].append(value)
        if len(asked["entity"]) > 1:
            raise InvalidRequest("ask for one kind of entity, as in ?entity=portfolio,symbol")
        entity = [field for one in asked["entity"] for field in one.split(",")]
        if not all(entity):
            raise InvalidRequest("one of the key fields after ?entity= is empty: leave it out")
        names = self._catalog.names
        return await self._answer(request, names, features_of(names, entity, asked["tag"]))

    async def feature(self, request: Request) -> Response:
        """One feature, by name, pin or alias. Raises `UnknownFeature` and `NotReady`."""
        names = self._catalog.names
        return await self._answer(request, names, definition_of(names, request.path_params["name"]))

    async def versions(self, request: Request) -> Response:
        """The versions of a feature. Raises `UnknownFeature` and `NotReady`."""
        names = self._catalog.names
        return await self._answer(request, names, versions_of(names, request.path_params["name"]))

    async def _answer(self, request: Request, names: Names, content: msgspec.Struct) -> Response:
        tag = await self._tag(names)
        headers = {"etag": f'W/"{tag}"', "cache-control": "no-cache"}
        if is_known(tag, request.headers.getlist("if-none-match")):
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        body = msgspec.json.encode(content)
        return Response(body, headers=headers, media_type="application/json")

    async def _tag(self, names: Names) -> str:
        """The tag of a catalog, made once: in a thread, while the event loop answers others."""
        if self._tagged is None or self._tagged[0] is not names or _is_lost(self._tagged[1]):
            self._tagged = names, asyncio.create_task(asyncio.to_thread(tag_of, names))
        return await asyncio.shield(self._tagged[1])  # others wait for it too


def tag_of(names: Names) -> str:
    """What differs between any two catalogs that are answered differently.

    It is the same in every server. It is made of everything that the routes say, so that a build
    which says it in another way has another one; and a piece at a time, as who encodes lets no
    other thread run.
    """
    digest = blake2b(msgspec.json.encode(features_of(names, (), ())), digest_size=16)
    for name in sorted(names.of_name):
        digest.update(msgspec.json.encode(all_versions(names, name)))
    return digest.hexdigest()


def _is_lost(tagging: asyncio.Task[str]) -> bool:
    """Whether there will be no tag: its server was about to stop, or a mistake was made."""
    return tagging.done() and (tagging.cancelled() or tagging.exception() is not None)


def is_known(tag: str, given: list[str]) -> bool:
    """Whether a client has what `tag` names, by its `If-None-Match`; weak comparison."""
    known = [one.strip().removeprefix("W/") for value in given for one in value.split(",")]
    return "*" in known or f'"{tag}"' in known
