"""The operations of the HTTP API: what each takes, answers and may be refused for.

`openapi` describes them by the very types that decode and encode, and errors by `problems`. So
nothing is told twice; what is told only here is which route has which of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from msgspec import Struct

from registry.formats.heartbeat import Heartbeat
from registry.lifecycle.lineage import Lineage
from registry.lifecycle.search import Page
from registry.lifecycle.usage import FeatureUsage
from serving.api.arrow import MEDIA_TYPE as ARROW
from serving.api.compact import CompactAnswer
from serving.api.feast import PATH as FEAST_PATH
from serving.api.feast import FeastAnswer, FeastRequest
from serving.api.lifecycle_routes import (
    ActivateRequest,
    AuditAnswer,
    Moved,
    NewVersion,
    RollBackRequest,
)
from serving.api.offline import OfflineAnswer, OfflineRequest
from serving.api.offline_process import PATH as OFFLINE_PATH
from serving.api.parameters import (
    BELOW,
    COMPACT,
    CONSUMER,
    DAYS,
    ENTITY,
    EXPLAINED,
    FEATURE_NAME,
    NAME,
    SEARCH,
    TAG,
    Document,
)
from serving.api.requests import BatchRequest, OnlineRequest
from serving.api.search_route import PATH as SEARCH_PATH
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
from serving.features.descriptions import FeatureDefinition, FeatureList, FeatureVersionList
from serving.features.reader import Answer
from serving.history.explanation import Explanation

JSON, TEXT, HTML = "application/json", "text/plain", "text/html"

Errors = tuple[type[ServingError], ...]


class BatchAnswer(Struct):
    """The features of each entity, in the order of the request."""

    results: list[Answer]


class Health(Struct):
    """The state of stores and workers; `status` is `unavailable` when no value can be served."""

    status: str
    stores: dict[str, str]
    tiers: dict[str, Any]
    breakers: dict[str, str]
    workers: dict[str, list[Heartbeat]]
    strangers: list[str]
    warnings: list[str]
    differences: list[str]
    processes: int
    connections: int


class Well(Struct):
    """The server is well."""

    status: str


class Operation(NamedTuple):
    """A route and a method, what it takes, and what it answers by media type.

    `tag` is the heading that it stands under.

    An answer is of one of the types; where there are none, only the media type is told. `unwell` is
    what is answered with 503 in place of a problem.
    """

    tag: str
    method: str
    path: str
    summary: str
    answers: Mapping[str, Sequence[type]]
    raises: Errors = ()
    body: type | None = None
    parameters: Sequence[Document] = ()
    is_cached: bool = False
    unwell: type | None = None


EVERYWHERE: Errors = (MalformedRequest, HeadTooLarge)
"""What any request may be refused for, before a route has it."""

ACCESS: Errors = (KeyMissing, KeyRefused, ScopeMissing)
"""What a request may be refused for that needs an API key, where the server is told so."""

ASKING: Errors = (
    InvalidRequest,
    UnknownFeature,
    RetiredFeature,
    WrongEntity,
    TooLarge,
    UnsupportedCoding,
    NotReady,
    DeadlineMissed,
    StoresUnavailable,
    Overloaded,
)
CHANGING: Errors = (
    InvalidRequest,
    UnknownFeature,
    StateConflict,
    ChangesNotAllowed,
    TooLarge,
    UnsupportedCoding,
    NotReady,
    DeadlineMissed,
    Overloaded,
)
OPERATIONS = (
    Operation(
        "Features",
        "post",
        "/features/online",
        "Features of one entity",
        {JSON: (Answer,)},
        ASKING,
        OnlineRequest,
        [CONSUMER],
    ),
    Operation(
        "Features",
        "post",
        "/features/batch",
        "Features of many entities, of one kind or of several",
        {JSON: (BatchAnswer, CompactAnswer), ARROW: ()},
        ASKING,
        BatchRequest,
        [COMPACT, CONSUMER],
    ),
    Operation(
        "Features",
        "post",
        OFFLINE_PATH,
        "Features of entities at moments of the past",
        {JSON: (OfflineAnswer,), ARROW: ()},
        (*ASKING, OpenTrainingSet),
        OfflineRequest,
    ),
    Operation(
        "Features",
        "post",
        FEAST_PATH,
        "Features for clients of Feast",
        {JSON: (FeastAnswer,)},
        ASKING,
        FeastRequest,
        [CONSUMER],
    ),
    Operation(
        "Catalog",
        "get",
        "/features",
        "The active version of each feature",
        {JSON: (FeatureList,)},
        (InvalidRequest, NotReady),
        parameters=[ENTITY, TAG],
        is_cached=True,
    ),
    Operation(
        "Catalog",
        "get",
        "/features/{name}",
        "A feature with its definition",
        {JSON: (FeatureDefinition,)},
        (UnknownFeature, RetiredFeature, NotReady),
        parameters=[NAME],
        is_cached=True,
    ),
    Operation(
        "Catalog",
        "get",
        "/features/{name}/versions",
        "All versions of a feature",
        {JSON: (FeatureVersionList,)},
        (UnknownFeature, RetiredFeature, NotReady),
        parameters=[NAME],
        is_cached=True,
    ),
    Operation(
        "Life of a feature",
        "post",
        "/features/{name}/versions",
        "Record a version",
        {JSON: (FeatureDefinition,)},
        CHANGING,
        NewVersion,
        [FEATURE_NAME],
    ),
    Operation(
        "Life of a feature",
        "post",
        "/features/{name}/activate",
        "Let a feature's name mean a version",
        {JSON: (Moved,)},
        CHANGING,
        ActivateRequest,
        [FEATURE_NAME],
    ),
    Operation(
        "Life of a feature",
        "post",
        "/features/{name}/rollback",
        "Let a feature's name mean what it did before",
        {JSON: (Moved,)},
        CHANGING,
        RollBackRequest,
        [FEATURE_NAME],
    ),
    Operation(
        "Life of a feature",
        "get",
        "/features/{name}/lineage",
        "What a feature comes from, and what depends on it",
        {JSON: (Lineage,)},
        (InvalidRequest, UnknownFeature, NotReady, Overloaded),
        parameters=[NAME],
    ),
    Operation(
        "Life of a feature",
        "get",
        "/features/{name}/audit",
        "Who changed what about a feature, its versions and its rows",
        {JSON: (AuditAnswer,)},
        (InvalidRequest, UnknownFeature, NotReady, Overloaded),
        parameters=[NAME, BELOW],
    ),
    Operation(
        "Catalog",
        "get",
        "/features/{name}/usage",
        "How often each version of a feature was read, by consumer and day",
        {JSON: (FeatureUsage,)},
        (InvalidRequest, UnknownFeature, NotReady, Overloaded),
        parameters=[NAME, DAYS],
    ),
    Operation(
        "Features",
        "get",
        "/features/{name}/explain",
        "How a value came about: its ticks, the arithmetic step by step, and the proof",
        {JSON: (Explanation,)},
        (
            InvalidRequest,
            UnknownFeature,
            RetiredFeature,
            WrongEntity,
            TooLarge,
            NotReady,
            DeadlineMissed,
            StoresUnavailable,
            Overloaded,
        ),
        parameters=[NAME, *EXPLAINED],
    ),
    Operation(
        "Catalog",
        "get",
        SEARCH_PATH,
        "Features by a text: names, aliases, tags, descriptions, sources, expressions",
        {JSON: (Page,)},
        (InvalidRequest, NotReady, DeadlineMissed, StoresUnavailable, Overloaded),
        parameters=SEARCH,
    ),
    Operation(
        "Server",
        "get",
        "/health",
        "The state of stores and workers",
        {JSON: (Health,)},
        unwell=Health,
    ),
    Operation("Server", "get", "/health/live", "Whether the process runs", {JSON: (Well,)}),
    Operation(
        "Server", "get", "/health/ready", "Whether it can answer", {JSON: (Well,)}, (NotReady,)
    ),
    Operation("Server", "get", "/metrics", "Metrics in Prometheus' text format", {TEXT: ()}),
    Operation("Server", "get", "/openapi.json", "This description", {JSON: ()}, is_cached=True),
    Operation("Server", "get", "/docs", "This description as a page", {HTML: ()}, is_cached=True),
)

EXAMPLES: Mapping[type, Document] = {
    OnlineRequest: {
        "features": ["current_price", "price_sma_5"],
        "entity_type": "symbol",
        "entity_value": "AAPL",
    },
    BatchRequest: {
        "features": ["current_price", "position_size"],
        "entities": [{"symbol": "AAPL"}, {"portfolio": "P1", "symbol": "AAPL"}],
    },
    OfflineRequest: {
        "features": ["price_sma_5"],
        "entities": [{"symbol": "AAPL"}, {"symbol": "AAPL"}],
        "timestamps": ["2026-11-24T14:30:00Z", "2026-11-24T14:35:00Z"],
    },
    NewVersion: {
        "version": "1.1.0",
        "parent_version": "1.0.0",
        "schema": {"max_age": "10s"},
        "note": "the model wants it fresher",
    },
    ActivateRequest: {"version": "1.1.0"},
    RollBackRequest: {"note": "the backtest disagrees"},
}
