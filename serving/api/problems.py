"""Errors as problem documents (RFC 9457): the only module that gives an error its HTTP status."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import NamedTuple

import msgspec
from msgspec import Struct
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from serving.api.content_codings import CODINGS
from serving.api.request_ids import REQUEST_ID
from serving.api.request_log import describe
from serving.errors import (
    ChangesNotAllowed,
    DeadlineMissed,
    HeadTooLarge,
    InvalidRequest,
    KeyMissing,
    KeyRefused,
    MalformedRequest,
    NotReady,
    OpenTrainingSet,
    Overloaded,
    RetiredFeature,
    ScopeMissing,
    ServingError,
    StateConflict,
    StoresUnavailable,
    TooLarge,
    UnknownFeature,
    UnsupportedCoding,
    WrongEntity,
)

PROBLEM_MEDIA_TYPE = "application/problem+json"

RETRY_SECONDS = 1
"""Seconds that a client is asked to wait where the same request may be answered later."""

LATER = MappingProxyType({"Retry-After": str(RETRY_SECONDS)})


class ProblemDocument(Struct):
    """What went wrong with a request, and what to do; some have more, by the names of values."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str


class Problem(NamedTuple):
    """How HTTP names a kind of error: `title` is the same for every error of the kind."""

    status: int
    title: str
    headers: Mapping[str, str] = MappingProxyType({})


def _challenge(error: str = "") -> Mapping[str, str]:
    """The header `WWW-Authenticate` (RFC 6750)."""
    why = f', error="{error}"' if error else ""
    return {"WWW-Authenticate": f'Bearer realm="tickwell"{why}'}


PROBLEMS: Mapping[type[ServingError], Problem] = {
    InvalidRequest: Problem(422, "The request cannot be understood"),
    TooLarge: Problem(413, "Too large"),
    HeadTooLarge: Problem(431, "The head of the request is too large"),
    MalformedRequest: Problem(400, "Not a request of HTTP/1.1"),
    UnknownFeature: Problem(404, "Unknown feature"),
    RetiredFeature: Problem(410, "Retired"),
    StateConflict: Problem(409, "Not in this state"),
    OpenTrainingSet: Problem(409, "Not closed yet"),
    ChangesNotAllowed: Problem(403, "No changes are taken"),
    WrongEntity: Problem(422, "Wrong kind of entity"),
    UnsupportedCoding: Problem(
        415, "The content coding is not supported", {"Accept-Encoding": ", ".join(CODINGS)}
    ),
    NotReady: Problem(503, "Not ready", LATER),
    DeadlineMissed: Problem(503, "Not in time", LATER),
    StoresUnavailable: Problem(503, "No value could be read", LATER),
    Overloaded: Problem(503, "Too many requests at once", LATER),
    KeyMissing: Problem(401, "An API key is needed", _challenge()),
    KeyRefused: Problem(401, "The API key is not valid", _challenge("invalid_token")),
    ScopeMissing: Problem(403, "The API key does not allow this", _challenge("insufficient_scope")),
}

LONGEST_SHOWN = 200
"""Characters of a path that an error repeats."""


def status_of(error: ServingError) -> int:
    """The HTTP status of an error."""
    return PROBLEMS[type(error)].status


def document_of(error: ServingError | HTTPException, scope: Scope) -> Response:
    """The response to an error that ends the request of a scope."""
    if isinstance(error, ServingError):
        status, title, headers = PROBLEMS[type(error)]
        response = _document(scope, status, title, error.detail, **error.context)
        response.headers.update(headers)
        return response
    title = HTTPStatus(error.status_code).phrase
    response = _document(scope, error.status_code, title, error.detail)
    response.headers.update(error.headers or {})
    return response


async def of_serving(request: Request, error: Exception) -> Response:
    """The response to an error of ours."""
    assert isinstance(error, ServingError)
    return document_of(error, request.scope)


async def of_starlette(request: Request, error: Exception) -> Response:
    """The response to what Starlette itself refuses: an unknown path, another method."""
    assert isinstance(error, HTTPException)
    path = request.scope["path"]
    shown = path if len(path) <= LONGEST_SHOWN else f"{path[:LONGEST_SHOWN]}…"
    error.detail = {
        404: f"there is no {shown}: GET /docs shows the routes",
        405: f"{shown} does not take {request.method}",
    }.get(error.status_code, error.detail)
    return document_of(error, request.scope)


async def of_mistake(request: Request, error: Exception) -> Response:
    """The response to a bug: the log has the exception, the client learns no internals."""
    describe(error, request.scope)
    text = "this is a mistake of the server; its log has more"
    return _document(request.scope, 500, "Internal error", text)


HANDLERS: Mapping[type[Exception], Callable[[Request, Exception], Awaitable[Response]]] = {
    ServingError: of_serving,
    HTTPException: of_starlette,
    Exception: of_mistake,
}
"""The handler of each kind of exception, as Starlette wants them."""


def _document(
    scope: Scope, status: int, title: str, detail: str, /, **extensions: object
) -> Response:
    content = {"type": "about:blank", "title": title, "status": int(status), "detail": detail}
    if REQUEST_ID in scope:
        extensions["request_id"] = scope[REQUEST_ID]
    return Response(
        msgspec.json.encode({**content, **extensions}),
        status,
        media_type=PROBLEM_MEDIA_TYPE,
    )
