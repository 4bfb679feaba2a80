"""The description of the HTTP API in OpenAPI 3.1, for people and programs."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from importlib.metadata import version
from inspect import cleandoc
from itertools import chain
from typing import Any

import msgspec

from serving.api.content_codings import CODINGS
from serving.api.deadlines import MOST_MS
from serving.api.operations import (
    ACCESS,
    EVERYWHERE,
    EXAMPLES,
    JSON,
    OPERATIONS,
    Operation,
)
from serving.api.parameters import KNOWN_TAG, Document
from serving.api.problems import PROBLEM_MEDIA_TYPE, PROBLEMS, ProblemDocument
from serving.api.scopes import scope_needed
from serving.errors import NotReady

REFERENCE = "#/components/schemas/{name}"
IDENTIFIED = {"X-Request-Id": {"$ref": "#/components/headers/RequestId"}}

SCHEMES: Document = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key."},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
"""How an API key is sent, where the server needs one."""

STATUS = "The status of a value, the worst of those that apply; the README explains them."

ONE_WAY = [
    {
        "required": ["entity_type", "entity_value"],
        "properties": {
            "entity_type": {"type": "string"},
            "entity_value": {"type": "string"},
            "entity": {"type": "null"},
        },
    },
    {
        "required": ["entity"],
        "properties": {
            "entity_type": {"type": "null"},
            "entity_value": {"type": "null"},
            "entity": {"type": "object"},
        },
    },
]
"""What the type of an `OnlineRequest` does not say, and its method `key` does."""


def document() -> Document:
    """The description."""
    schemas = _Schemas(OPERATIONS)
    paths: dict[str, Document] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _operation(operation, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tickwell",
            "version": version("tickwell"),
            "summary": "A feature store for market ticks.",
            "description": (
                "Every value has a status, a version and an event time. Errors are problem "
                "documents (RFC 9457) that say what to do. What has `GET` has `HEAD`. A body may "
                f"be compressed ({', '.join(CODINGS)}), and large answers are by `Accept-Encoding` "
                "where the server is told to. `X-Deadline-Ms` with a question says in how many "
                f"milliseconds, 1 to {MOST_MS}, its answer is of use."
            ),
        },
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "headers": {
                "RequestId": {
                    "description": "The id of the request: the client's, where it sent one.",
                    "required": True,
                    "schema": {"type": "string", "pattern": "^[!-~]{1,128}$"},
                },
                "ETag": {"required": True, "schema": {"type": "string"}},
            },
            "securitySchemes": SCHEMES,
            "parameters": {
                "RequestId": {
                    "name": "X-Request-Id",
                    "in": "header",
                    "description": (
                        "An id for the request, 1 to 128 visible ASCII characters; the answer and "
                        "the server's logs have it too. Without one the server makes it."
                    ),
                    "schema": {"type": "string"},
                }
            },
        },
    }


class _Schemas:
    """The JSON Schemas of all types that operations name."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        types: dict[Any, None] = {ProblemDocument: None}
        for operation in operations:
            several = (operation.body, *chain(*operation.answers.values()), operation.unwell)
            types |= dict.fromkeys(one for one in several if one is not None)
        schemas, self.components = msgspec.json.schema_components(types, ref_template=REFERENCE)
        self._of = dict(zip(types, schemas, strict=True))
        self.components["OnlineRequest"]["oneOf"] = ONE_WAY
        self.components["Status"] |= {"type": "string", "description": STATUS}
        _polish(self.components)

    def media(self, media_type: str, *types: type) -> Document:
        """What an answer or a body is that has one of these types."""
        schemas = [self._of[one] for one in types]
        if not schemas:
            return {media_type: {}}
        media = {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}}
        if types[0] in EXAMPLES:
            media["example"] = EXAMPLES[types[0]]
        return {media_type: media}


def _polish(schema: Any) -> None:
    """Make texts of docstrings, and patterns those of JSON Schema: Python's `\\Z` is its `$`."""
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key == "description" and isinstance(value, str):
                schema[key] = " ".join(cleandoc(value).split())
            elif key == "pattern" and isinstance(value, str):
                schema[key] = value.replace(r"\Z", "$")
            else:
                _polish(value)
    elif isinstance(schema, list):
        for one in schema:
            _polish(one)


def _operation(operation: Operation, schemas: _Schemas) -> Document:
    parameters = [*operation.parameters, *([KNOWN_TAG] if operation.is_cached else [])]
    described: Document = {
        "tags": [operation.tag],
        "summary": operation.summary,
        "operationId": f"{operation.method}{operation.path}".translate(
            {ord("/"): "_", ord("."): "_", ord("{"): None, ord("}"): None}
        ),
        "parameters": [*parameters, {"$ref": "#/components/parameters/RequestId"}],
        "responses": _responses(operation, schemas),
    }
    if _needs_key(operation):
        described["security"] = [{}, *({name: []} for name in SCHEMES)]
    if operation.body is not None:
        content = schemas.media(JSON, operation.body)
        described["requestBody"] = {"required": True, "content": content}
    return described


def _needs_key(operation: Operation) -> bool:
    """Whether a request needs an API key where the server is told that requests do."""
    return scope_needed(operation.method.upper(), operation.path) is not None


def _responses(operation: Operation, schemas: _Schemas) -> Document:
    tagged = {"ETag": {"$ref": "#/components/headers/ETag"}} if operation.is_cached else {}
    headers = IDENTIFIED | tagged
    content: Document = {}
    for media_type, types in operation.answers.items():
        content |= schemas.media(media_type, *types)
    ok = {"description": "The answer", "headers": headers, "content": content}
    responses: Document = {str(HTTPStatus.OK.value): ok}
    if operation.is_cached:
        unchanged = {"description": "What the client has still holds", "headers": headers}
        responses[str(HTTPStatus.NOT_MODIFIED.value)] = unchanged
    problem = schemas.media(PROBLEM_MEDIA_TYPE, ProblemDocument)
    access = ACCESS if _needs_key(operation) else ()
    for error in (*EVERYWHERE, *access, *operation.raises):
        status, title, own = PROBLEMS[error]
        known: Document = responses.setdefault(
            str(status),
            {
                "description": "",
                "headers": IDENTIFIED | {name: {"schema": {"type": "string"}} for name in own},
                "content": problem,
            },
        )
        known["description"] += f"; {title}" if known["description"] else title
    if operation.unwell is not None:
        responses[str(PROBLEMS[NotReady].status)] = {
            "description": "No value can be served",
            "headers": IDENTIFIED,
            "content": schemas.media(JSON, operation.unwell),
        }
    return responses
