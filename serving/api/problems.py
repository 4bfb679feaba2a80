"""Errors as problem documents (RFC 9457): the only module that gives an error its HTTP status."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import NamedTuple

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from serving.errors import (
    InvalidRequest,
    NotReady,
    ServingError,
    TooLarge,
    UnknownFeature,
    WrongEntity,
)

MEDIA_TYPE = "application/problem+json"


class Problem(NamedTuple):
    """How HTTP names a kind of error: `title` is the same for every error of the kind."""

    status: int
    title: str


PROBLEMS: Mapping[type[ServingError], Problem] = {
    InvalidRequest: Problem(422, "The request cannot be understood"),
    TooLarge: Problem(413, "Too large"),
    UnknownFeature: Problem(404, "Unknown feature"),
    WrongEntity: Problem(422, "Wrong kind of entity"),
    NotReady: Problem(503, "Not ready"),
}


def status_of(error: ServingError) -> int:
    """The HTTP status of an error."""
    return PROBLEMS[type(error)].status


def document_of(error: ServingError | HTTPException) -> bytes:
    """The document of an error that ends a request."""
    if isinstance(error, ServingError):
        status, title = PROBLEMS[type(error)]
        return _document(status, title, error.detail, **error.context)
    return _document(error.status_code, HTTPStatus(error.status_code).phrase, error.detail)


async def of_serving(request: Request, error: Exception) -> Response:
    """The response to an error of ours."""
    assert isinstance(error, ServingError)
    return Response(document_of(error), status_of(error), media_type=MEDIA_TYPE)


async def of_starlette(request: Request, error: Exception) -> Response:
    """The response to what Starlette itself refuses: an unknown path, another method."""
    assert isinstance(error, HTTPException)
    title, path = HTTPStatus(error.status_code).phrase, request.scope["path"]
    detail = {
        404: f"there is no {path}; see README for the routes",
        405: f"{path} does not take {request.method}",
    }.get(error.status_code, error.detail)
    content = _document(error.status_code, title, detail)
    return Response(content, error.status_code, error.headers, MEDIA_TYPE)


async def of_mistake(request: Request, error: Exception) -> Response:
    """The response to a bug: the log has the exception, the client learns no internals."""
    text = "this is a mistake of the server; its log has more"
    return Response(_document(500, "Internal error", text), 500, media_type=MEDIA_TYPE)


HANDLERS: Mapping[type[Exception], Callable[[Request, Exception], Awaitable[Response]]] = {
    ServingError: of_serving,
    HTTPException: of_starlette,
    Exception: of_mistake,
}
"""The handler of each kind of exception, as Starlette wants them."""


def _document(status: int, title: str, detail: str, **extensions: object) -> bytes:
    content = {"type": "about:blank", "title": title, "status": int(status), "detail": detail}
    return msgspec.json.encode({**content, **extensions})
