"""The routes that change what is recorded of features, and those that say what was changed.

A change needs an API key that allows writing. A server that asks for no keys takes none: whoever
reaches it, also a page in somebody's browser, could else change what models are served.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, request_response
from starlette.types import ASGIApp, Receive, Scope, Send

from registry.definitions import Catalog
from registry.lifecycle.audit import By, Entry
from registry.lifecycle.lineage import Lineage
from registry.lifecycle.new_versions import DeclaredVersion
from registry.lifecycle.registry import Registry
from serving.api.catalog_routes import FEATURE
from serving.api.deadlines import Deadline, Deadlines
from serving.api.feature_routes import Bounds, Content, FeatureRoute
from serving.api.forms import JSON
from serving.api.request_ids import REQUEST_ID
from serving.api.request_log import KEY_NAME
from serving.errors import ChangesNotAllowed, InvalidRequest
from serving.features.descriptions import FeatureDefinition, described
from serving.features.lookup import Names
from serving.metrics import Metrics
from serving.stores.registry_calls import ANSWER_SECONDS, RegistryCalls
from serving.watch.catalog import CatalogWatch

READ_SECONDS = 0.5
"""Seconds that an answer waits until its process has read what was changed."""

MOST_ENTRIES = 200
"""Number of lines of the audit in an answer."""

NUMBER = re.compile(r"[0-9]{1,18}")
Note = Annotated[str, Meta(max_length=1_000)]
Version = Annotated[str, Meta(min_length=1, max_length=32)]


class NewVersion(Struct, forbid_unknown_fields=True):
    """A version to record: `schema` has the settings of a `[[feature]]` table in a features file.

    What it leaves out comes from the version `parent_version`. `note` says why, for the audit.
    """

    version: Version
    schema: dict[str, Any] = {}
    parent_version: Version | None = None
    note: Note = ""


class ActivateRequest(Struct, forbid_unknown_fields=True):
    """The version that the feature's name is to mean.

    It must have values of all that the active one has; `without_history` lets it lack what came
    before its first tick.
    """

    version: Version
    without_history: bool = False
    note: Note = ""


class RollBackRequest(Struct, forbid_unknown_fields=True):
    """Why the feature's name is to mean what it did before."""

    note: Note = ""


class Moved(Struct):
    """What a feature's name means now, and what it meant before the last move."""

    name: str
    version: str
    previous: str | None


class SchemaStart(Struct):
    """The first offset of a partition from which rows are in a row schema."""

    topic: str
    partition: int
    offset: int


class AuditEntry(Struct):
    """A line of the audit: who changed what, when, and from what to what.

    Of a new row schema, whose id is the `subject`, `starts` says where it begins.
    """

    id: int
    at: str
    actor: str
    action: str
    subject: str
    before: Any
    after: Any
    request_id: str | None
    note: str
    starts: list[SchemaStart]


class AuditAnswer(Struct):
    """Lines of the audit, the newest first; `below` asks for the ones before them."""

    entries: list[AuditEntry]
    below: int | None


Body = TypeVar("Body", bound=Struct)


Answer = Callable[[Request], Awaitable[Response]]


class ReadOrPosted:
    """An ASGI application of a path that is read and posted to: 405 names both methods."""

    def __init__(self, read: Answer, posted: ASGIApp) -> None:
        self._read = request_response(read)
        self._posted = posted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._posted if scope["method"] == "POST" else self._read
        await app(scope, receive, send)


class LifecycleRoutes:
    """Answers from the registry. Without `takes_changes` it only says what was changed."""

    def __init__(self, catalog: CatalogWatch, registry: RegistryCalls, takes_changes: bool) -> None:
        self._catalog = catalog
        self._registry = registry
        self._takes_changes = takes_changes

    def routes(self, metrics: Metrics, bounds: Bounds, versions: Answer) -> list[Route]:
        """The routes; bodies are read within `bounds`, and `versions` answers what is recorded."""
        changes: dict[str, Callable[[Scope, bytes, Deadline], Awaitable[Content]]] = {
            "versions": self.create,
            "activate": self.activate,
            "rollback": self.roll_back,
        }
        # A change is made or not, however long its client is willing to wait for the answer.
        whole = bounds[0], Deadlines(int(ANSWER_SECONDS * 1_000) + 1_000)
        posted = {
            last: FeatureRoute(f"/features/{{name}}/{last}", answer, metrics, whole, hurries=False)
            for last, answer in changes.items()
        }
        both = ReadOrPosted(versions, posted.pop("versions"))
        return [
            Route(f"{FEATURE}/versions", both, methods=["GET", "POST"]),
            *(Route(f"{FEATURE}/{last}", app, methods=["POST"]) for last, app in posted.items()),
            Route(f"{FEATURE}/lineage", self.lineage),
            Route(f"{FEATURE}/audit", self.audit),
        ]

    async def create(self, scope: Scope, body: bytes, deadline: Deadline) -> Content:
        """Record a version. Raises as `RegistryCalls`."""
        given, name = self._given(scope, body, NewVersion)

        def work(registry: Registry) -> FeatureDefinition:
            version = DeclaredVersion(name, given.version, given.schema, given.parent_version)
            known, (made,) = registry.record_versions([version], given.note)
            return described(Names(known), made)

        return await self._changed(scope, work)

    async def activate(self, scope: Scope, body: bytes, deadline: Deadline) -> Content:
        """Make a name mean a version. Raises as `RegistryCalls`."""
        given, name = self._given(scope, body, ActivateRequest)

        def work(registry: Registry) -> Moved:
            ref = f"{name}@{given.version}"
            return _moved(registry, registry.activate(ref, given.note, given.without_history), name)

        return await self._changed(scope, work)

    async def roll_back(self, scope: Scope, body: bytes, deadline: Deadline) -> Content:
        """Make a name mean what it did before. Raises as `RegistryCalls`."""
        given, name = self._given(scope, body or b"{}", RollBackRequest)

        def work(registry: Registry) -> Moved:
            return _moved(registry, registry.roll_back(name, given.note), name)

        return await self._changed(scope, work)

    async def lineage(self, request: Request) -> Response:
        """Where a feature comes from and what depends on it. Raises as `RegistryCalls`."""
        name = request.path_params["name"]
        _no_query(request)
        found: Lineage = await self._registry.read(_by(request.scope), lambda r: r.lineage(name))
        return Response(msgspec.json.encode(found), HTTPStatus.OK, media_type="application/json")

    async def audit(self, request: Request) -> Response:
        """Who changed a feature. Raises as `RegistryCalls`, and `InvalidRequest`."""
        name, below = request.path_params["name"], _below(request.query_params.multi_items())
        found = await self._registry.read(
            _by(request.scope), lambda registry: registry.audit(name, MOST_ENTRIES, below)
        )
        entries = [_entry(one) for one in found]
        more = entries[-1].id if len(entries) == MOST_ENTRIES else None
        answer = msgspec.json.encode(AuditAnswer(entries, more))
        return Response(answer, HTTPStatus.OK, media_type="application/json")

    def _given(self, scope: Scope, body: bytes, kind: type[Body]) -> tuple[Body, str]:
        """What a client sends, and the name in the path.

        Raises `InvalidRequest`, and `ChangesNotAllowed`.
        """
        if not self._takes_changes:
            raise ChangesNotAllowed(
                "this server asks for no API keys, so it takes no changes over HTTP: set "
                "TICKWELL_KEYS=required and send a key with the scope write, or use `tickwell "
                "features`"
            )
        if scope["query_string"]:
            raise InvalidRequest("this route takes nothing behind a question mark")
        name = scope["path_params"]["name"]
        try:
            return msgspec.json.decode(body, type=kind), name
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidRequest(str(error)) from None

    async def _changed(self, scope: Scope, work: Callable[[Registry], Struct]) -> Content:
        """The answer to a change; whoever asks this server next sees it."""
        answer = await self._registry.change(_by(scope), work)
        with suppress(TimeoutError):  # what is not read now is read in a moment
            async with asyncio.timeout(READ_SECONDS):
                for _ in range(2):  # the first reading may have begun before the change
                    await self._catalog.refresh()
        return msgspec.json.encode(answer), JSON, ()


def _moved(registry: Registry, known: Catalog, name: str) -> Moved:
    newest = registry.last_move(known, name)
    return Moved(newest.name, newest.version, newest.previous)


def _entry(line: Entry) -> AuditEntry:
    starts = [SchemaStart(*start) for start in line.starts]
    return AuditEntry(**(line._asdict() | {"at": line.at.isoformat(), "starts": starts}))


def _by(scope: Scope) -> By:
    """Who asks: the name of the API key, which is not secret."""
    key = scope.get(KEY_NAME)
    return By("HTTP" if key is None else f"key {key}", scope.get(REQUEST_ID))


def _no_query(request: Request) -> None:
    if request.url.query:
        raise InvalidRequest("this route takes nothing behind a question mark")


def _below(given: list[tuple[str, str]]) -> int | None:
    """The id below which lines are asked for. Raises `InvalidRequest`."""
    if not given:
        return None
    names, values = zip(*given, strict=True)
    if names == ("below",) and NUMBER.fullmatch(values[0]):
        return int(values[0])
    raise InvalidRequest("this route takes ?below=, the number that an answer gave, and no more")
