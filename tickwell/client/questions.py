"""What the server is asked, and how its answers are read; nothing here sends anything.

About few entities the server is asked for JSON objects, about many for Arrow: a value of an Arrow
answer takes both sides a fraction of the time, and the library that reads it takes a while to load.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Generic, NamedTuple, Protocol, TypeVar
from urllib.parse import quote, urlencode

import msgspec
from msgspec import Struct

from registry.definitions import SET_PREFIX
from serving.api.requests import MAX_BODY_BYTES, MAX_ENTITIES
from tickwell.client.batch import BatchFeatures
from tickwell.client.columns import Columns, FeatureColumn
from tickwell.client.errors import ClientError, NoTickwellServer, ProblemAnswer, kind_of
from tickwell.client.values import EntityFeatures, FeatureInfo, FeatureValue

ARROW_FROM = 20
"""Number of entities from which the answer is asked for in Arrow."""

MOST_DEADLINE_MS = 60_000
"""Milliseconds that a server may be given; a call that may take longer waits for longer itself."""

JSON, ARROW = "application/json", "application/vnd.apache.arrow.stream"
OK, SERVICE_UNAVAILABLE = 200, 503
ENTITY_NAMES = "entity_type", "entity_value"

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Headers(Protocol):
    """The headers of an answer, whatever the case of their names."""

    def get(self, name: str, /) -> str | None: ...


class Answer(NamedTuple):
    """What came over HTTP."""

    status: int
    headers: Headers
    body: bytes


class Question(NamedTuple, Generic[T]):
    """A request, and how the answer to it is read.

    `read` raises `msgspec.MsgspecError` for what no Tickwell server would answer. The answer may
    have another of `statuses` than 200.
    """

    method: str
    path: str
    body: bytes
    accept: str
    read: Callable[[bytes], T]
    statuses: tuple[int, ...] = (OK,)
    content_type: str = JSON

    def headers(self, seconds: float) -> dict[str, str]:
        """Its headers, where `seconds` are left until the deadline."""
        milliseconds = min(max(1, int(seconds * 1000)), MOST_DEADLINE_MS)
        headers = {"Accept": self.accept, "X-Deadline-Ms": str(milliseconds)}
        if self.body:
            headers["Content-Type"] = self.content_type
        return headers

    def settled(self, answer: Answer, shown_url: str) -> T:
        """What was answered. Raises `ClientError`: a `ProblemAnswer`, or `NoTickwellServer`."""
        try:
            if answer.status in self.statuses and not _is_problem(answer):
                return self.read(answer.body)
            raise problem_of(answer)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise NoTickwellServer(shown_url, answer.status) from None


class _Entity(Struct):
    entity: dict[str, str]
    features: dict[str, FeatureValue]


class _Results(Struct):
    results: list[_Entity]


class _Features(Struct):
    features: list[FeatureInfo]


class _Problem(Struct):
    title: str
    detail: str = ""


_ENTITY = msgspec.json.Decoder(_Entity)
_RESULTS = msgspec.json.Decoder(_Results)
_FEATURE = msgspec.json.Decoder(FeatureInfo)
_FEATURES = msgspec.json.Decoder(_Features)
_PROBLEM = msgspec.json.Decoder(_Problem)
_OBJECT = msgspec.json.Decoder(dict[str, Any])


def online(
    feature_names: Sequence[str],
    entity_type: str | None,
    entity_value: str | None,
    entity: Mapping[str, str] | None,
) -> Question[EntityFeatures]:
    """The features of one entity, named in one of two ways. Raises ValueError where it is not."""
    named = _named(entity_type, entity_value, entity)
    body = msgspec.json.encode({"features": names_of(feature_names), "entity": named})
    return Question("POST", "/features/online", body, JSON, _read_entity)


def explain(
    feature_name: str,
    entity_type: str | None,
    entity_value: str | None,
    entity: Mapping[str, str] | None,
    at: datetime | None,
) -> Question[dict[str, Any]]:
    """How a value came about. Raises ValueError for an entity that is not named in one way."""
    named = _named(entity_type, entity_value, entity)
    asked = [(k, v) for pair in named.items() for k, v in zip(ENTITY_NAMES, pair, strict=True)]
    if at is not None:
        if at.tzinfo is None:
            raise ValueError(f"at={at!r} has no time zone")
        asked.append(("at", at.isoformat()))
    path = f"/features/{quote(feature_name, safe='@')}/explain?{urlencode(asked)}"
    return Question("GET", path, b"", JSON, _OBJECT.decode)


def _named(
    entity_type: str | None, entity_value: str | None, entity: Mapping[str, str] | None
) -> dict[str, str]:
    by_value = entity_type is not None and entity_value is not None
    if by_value == (entity is not None) or (entity is not None and entity_type is not None):
        raise ValueError(
            "name the entity by entity_type='symbol' and entity_value='AAPL', or by "
            "entity={'portfolio': 'P1', 'symbol': 'AAPL'}"
        )
    return {str(entity_type): str(entity_value)} if entity is None else dict(entity)


def batch(
    feature_names: Sequence[str], entities: Iterable[Mapping[str, str]]
) -> Iterator[Question[Columns]]:
    """The features of many entities: as many questions as the limits of the server ask for."""
    names = names_of(feature_names)
    start = b'{"features":%b,"entities":[' % msgspec.json.encode(names)
    room = MAX_BODY_BYTES - len(start) - len(b"]}")
    texts: list[bytes] = []
    size = 0
    for entity in entities:
        text = msgspec.json.encode(entity)
        if texts and (len(texts) == MAX_ENTITIES or size + len(text) + 1 > room):
            yield _batch(start, texts, names)
            texts, size = [], 0
        texts.append(text)
        size += len(text) + 1
    if texts:
        yield _batch(start, texts, names)


def answer_of(parts: Sequence[Columns], feature_names: Sequence[str]) -> BatchFeatures:
    """The answer that parts make; without entities there are no parts."""
    if parts:
        return BatchFeatures(Columns.joined(parts))
    features = {name: FeatureColumn.of([]) for name in names_of(feature_names)}
    return BatchFeatures(Columns({}, features, 0))


def health() -> Question[dict[str, Any]]:
    """How the server is; one that is not well says so by its status."""
    return Question("GET", "/health", b"", JSON, _read_health, (OK, SERVICE_UNAVAILABLE))


def features(entity: Sequence[str], tags: Sequence[str]) -> Question[list[FeatureInfo]]:
    """All features, or those of a kind of entity, named by its key fields, that have all tags."""
    asked = [("entity", ",".join(entity))] if entity else []
    query = urlencode([*asked, *(("tag", tag) for tag in tags)])
    path = f"/features?{query}" if query else "/features"
    return Question("GET", path, b"", JSON, lambda body: _FEATURES.decode(body).features)


def feature(name: str) -> Question[FeatureInfo]:
    """One feature by its name, an alias or with its version."""
    return Question("GET", f"/features/{quote(name, safe='@')}", b"", JSON, _FEATURE.decode)


def _is_problem(answer: Answer) -> bool:
    return (answer.headers.get("Content-Type") or "").startswith("application/problem+json")


def problem_of(answer: Answer) -> ClientError:
    """The error that a problem document is. Raises `msgspec.MsgspecError` for what is none."""
    problem, document = _PROBLEM.decode(answer.body), _OBJECT.decode(answer.body)
    kind: type[ProblemAnswer] = kind_of(answer.status, problem.title)
    context = {
        name: value
        for name, value in document.items()
        if name not in ("type", "title", "status", "detail", "instance")
    }
    return kind(
        problem.detail or problem.title,
        answer.status,
        answer.headers.get("X-Request-Id"),
        _seconds(answer.headers.get("Retry-After")),
        context,
    )


def names_of(feature_names: Sequence[str]) -> list[str]:
    """The names, each once. Raises TypeError for what is no list of names."""
    if isinstance(feature_names, str):
        raise TypeError(
            f"feature_names={feature_names!r}: a list of names is wanted, as [{feature_names!r}]"
        )
    return list(dict.fromkeys(feature_names))


def _batch(start: bytes, texts: Sequence[bytes], names: Sequence[str]) -> Question[Columns]:
    body = b"%b%b]}" % (start, b",".join(texts))
    if len(texts) < ARROW_FROM:
        return Question("POST", "/features/batch", body, JSON, lambda b: _read_results(b, names))
    return Question("POST", "/features/batch", body, ARROW, _read_arrow)


def _read_entity(body: bytes) -> EntityFeatures:
    found = _ENTITY.decode(body)
    return EntityFeatures(found.entity, found.features)


def _read_results(body: bytes, names: Sequence[str]) -> Columns:
    results = _RESULTS.decode(body).results
    fields = dict.fromkeys(field for result in results for field in result.entity)
    named = [name for name in names if not name.startswith(SET_PREFIX)]
    answered = dict.fromkeys([*named, *(name for one in results for name in one.features)])
    return Columns(
        keys={field: [result.entity.get(field) for result in results] for field in fields},
        features={
            name: FeatureColumn.of([result.features.get(name) for result in results])
            for name in answered
        },
        rows=len(results),
    )


def _read_arrow(body: bytes) -> Columns:
    from tickwell.client.arrow_answers import columns

    return columns(body)


def _read_health(body: bytes) -> dict[str, Any]:
    found = _OBJECT.decode(body)
    if "status" not in found:
        raise msgspec.ValidationError("it is no answer of GET /health")
    return found


def _seconds(retry_after: str | None) -> float | None:
    """The seconds of `Retry-After`; its other form, a date, is of no server of ours."""
    return float(retry_after) if retry_after and retry_after.isdecimal() else None
