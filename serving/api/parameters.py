"""The parameters of operations: what stands in paths, behind question marks and in headers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from registry.formats import consumer
from registry.lifecycle.search import LONGEST, MOST_FEATURES
from registry.lifecycle.usage_recording import RETENTION_DAYS
from registry.naming import NAME as NAMES
from serving.api.search_route import FEATURES

Document = dict[str, Any]

COMPACT = {
    "name": "compact",
    "in": "query",
    "description": "Answer by columns, in about a fifth of the bytes.",
    "allowEmptyValue": True,
    "schema": {"type": "string", "enum": [""]},
}
NAME = {
    "name": "name",
    "in": "path",
    "required": True,
    "description": "A feature's name, an alias, or either with a version: `price_sma_5@1.0.0`.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 128},
    "example": "price_sma_5",
}
FEATURE_NAME = NAME | {"description": "A feature's name: `price_sma_5`."}
BELOW = {
    "name": "below",
    "in": "query",
    "description": "The number that an answer gave: the lines before it.",
    "schema": {"type": "integer", "minimum": 0, "maximum": 10**18 - 1},
}
ENTITY = {
    "name": "entity",
    "in": "query",
    "description": "The key fields of one kind of entity, in any order: `portfolio,symbol`.",
    "style": "form",
    "explode": False,
    "schema": {"type": "array", "minItems": 1, "items": {"type": "string", "minLength": 1}},
}
TAG = {
    "name": "tag",
    "in": "query",
    "description": "A tag that a feature must have; given again, one more.",
    "schema": {"type": "array", "items": {"type": "string", "minLength": 1}},
}
CONSUMER = {
    "name": consumer.HEADER,
    "in": "header",
    "description": (
        f"Who asks, for the counts of reads: {consumer.FORM}. Where the server needs API keys, the "
        "key's name counts instead."
    ),
    "schema": {"type": "string", "pattern": f"^{consumer.NAME.pattern}$"},
    "example": "pricing-model",
}
DAYS = {
    "name": "days",
    "in": "query",
    "description": "How many days, up to today (UTC).",
    "schema": {"type": "integer", "minimum": 1, "maximum": RETENTION_DAYS, "default": 30},
}
SEARCH: Sequence[Document] = (
    {
        "name": "q",
        "in": "query",
        "required": True,
        "description": "What to look for: a name, or words; case and typing errors do not matter.",
        "schema": {"type": "string", "maxLength": LONGEST},
        "example": "price volatility",
    },
    {
        "name": "limit",
        "in": "query",
        "description": "The most features of a page.",
        "schema": {
            "type": "integer",
            "minimum": 1,
            "maximum": MOST_FEATURES,
            "default": FEATURES,
        },
    },
    {
        "name": "after",
        "in": "query",
        "description": "The `next` of the page before.",
        "schema": {"type": "string", "pattern": f"^{NAMES.pattern}$"},
    },
)
EXPLAINED: Sequence[Document] = (
    {
        "name": "entity_type",
        "in": "query",
        "required": True,
        "description": "A key field of the entity: `symbol`. Given again, one more.",
        "schema": {
            "type": "array",
            "minItems": 1,
            "maxItems": 8,
            "items": {"type": "string", "minLength": 1, "maxLength": 128},
        },
        "example": ["symbol"],
    },
    {
        "name": "entity_value",
        "in": "query",
        "required": True,
        "description": "The value of each key field, in the order of these: `AAPL`.",
        "schema": {
            "type": "array",
            "minItems": 1,
            "maxItems": 8,
            "items": {"type": "string", "minLength": 1, "maxLength": 255},
        },
        "example": ["AAPL"],
    },
    {
        "name": "at",
        "in": "query",
        "description": "As a model was given it at this moment, RFC 3339; else as it is now.",
        "schema": {"type": "string", "format": "date-time"},
    },
)
KNOWN_TAG = {
    "name": "If-None-Match",
    "in": "header",
    "description": "The `ETag` of an earlier answer, which is not sent again while it holds.",
    "schema": {"type": "string"},
}
