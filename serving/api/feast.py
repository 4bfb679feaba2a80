"""Feast's route: what its clients ask as they would ask Feast's own server, in its words.

    {"features": ["price:current_price", "price:price_sma_5"],
     "entities": {"symbol": ["AAPL", "NONE"]}, "full_feature_names": false}

    {"metadata": {"feature_names": ["symbol", "current_price", "price_sma_5"]},
     "results": [{"values": ["AAPL", "NONE"], "statuses": ["PRESENT", "PRESENT"],
                  "event_timestamps": ["1970-01-01T00:00:00.000000Z", …]},
                 {"values": [189.4, null], "statuses": ["PRESENT", "NOT_FOUND"],
                  "event_timestamps": ["2026-11-24T13:05:46.264000Z", …]}, …]}

The values are those of the other routes, to the bit. Feast's client hands out what stands there
whatever its status, and takes a number without a point for an integer: so a value is null with
every status but PRESENT, and a float always has a point or an exponent. A row may have the key
fields of several kinds of entities; each feature takes those of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta, Struct

from registry.definitions import FeatureVersion
from registry.formats.status import RANK, Status
from serving.api.answering import PLAINLY, Answered, Answering, Asking
from serving.api.memo import Memo
from serving.api.requests import MAX_ENTITIES, Text, parse
from serving.errors import InvalidRequest, NotReady, WrongEntity
from serving.features.columns import NO_TIME
from serving.features.lookup import MAX_FEATURES, Names
from serving.features.table import ListedColumn
from serving.features.times import to_rfc_3339
from serving.features.views import Views
from serving.usage import Read

PATH = "/get-online-features"

KEPT_BYTES = 4_000_000
"""Bytes of all questions that are kept, about."""

TIMES_BYTES = 4_000_000
"""Bytes of all texts of times that are kept, about."""

COLUMN_BYTES = 300
"""What a column of a question takes beside its names, about."""

Columns = dict[str, ListedColumn]
"""What is known of entities of one kind, by the names of features."""

Reference = Annotated[str, Meta(min_length=1, max_length=256)]


class FeastStatus(StrEnum):
    """A status in Feast's words."""

    PRESENT = "PRESENT"
    NULL_VALUE = "NULL_VALUE"
    NOT_FOUND = "NOT_FOUND"
    OUTSIDE_MAX_AGE = "OUTSIDE_MAX_AGE"


FEAST_STATUS = {
    Status.OK: FeastStatus.PRESENT,
    Status.STALE: FeastStatus.OUTSIDE_MAX_AGE,
    Status.LAGGING: FeastStatus.OUTSIDE_MAX_AGE,
    Status.WARMING: FeastStatus.NULL_VALUE,
    Status.UNDEFINED: FeastStatus.NULL_VALUE,
    Status.MISSING: FeastStatus.NOT_FOUND,
}
"""There is none for `unavailable`: such an answer is an error."""

BY_RANK = [FEAST_STATUS.get(status, FeastStatus.NOT_FOUND) for status in Status]
UNAVAILABLE = RANK[Status.UNAVAILABLE]


class FeastRequest(Struct):
    """Features of the entities whose key fields are the columns `entities`.

    Without a `feature_service` the features are named, as `view:feature`. Further keys, and columns
    that no feature needs, are passed over.
    """

    entities: dict[str, list[Any]]
    features: Annotated[list[Reference], Meta(max_length=MAX_FEATURES)] = []
    feature_service: str | None = None
    full_feature_names: bool = False


class FeastMetadata(Struct):
    """The names of the columns: key fields, then features in the order of the request."""

    feature_names: list[str]


class FeastColumn(Struct):
    """A key field or a feature of all entities; a time of 1970 stands for none."""

    values: list[float | str | None]
    statuses: list[FeastStatus]
    event_timestamps: list[str]


class FeastAnswer(Struct):
    """What is known of the entities, by columns."""

    metadata: FeastMetadata
    results: list[FeastColumn]


class WantedColumn(NamedTuple):
    """A column of the answer: its name there, the feature's name, and the feature's key fields."""

    shown: str
    name: str
    fields: tuple[str, ...]


class FeastRoute:
    """Answers Feast's clients from the questions that the other routes ask."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering
        self._times = _Times()
        self._views: Views | None = None
        self._known: Memo[tuple[str | None, tuple[str, ...], bool], list[WantedColumn]]

    async def answer(self, body: bytes, asking: Asking = PLAINLY) -> Answered:
        """The answer to a `FeastRequest`.

        Raises `InvalidRequest`, `UnknownFeature`, `WrongEntity` and, where a value could not be
        read, `NotReady`: Feast has no status for that.
        """
        request = parse(body, FeastRequest)
        names = self._answering.names
        wanted = self._wanted(names, request)
        keys = _keys(request.entities, wanted)
        kinds = list(dict.fromkeys(column.fields for column in wanted))
        reading: list[Coroutine[None, None, tuple[Columns, Sequence[Read]]]] = []
        for fields in kinds:
            rows = zip(*[keys[field] for field in fields], strict=True)
            entities = [dict(zip(fields, row, strict=True)) for row in rows]
            features = list(dict.fromkeys(c.name for c in wanted if c.fields == fields))
            reading.append(self._columns(names, features, entities, asking))
        # Several kinds are read together: one after the other they would take as long as each does.
        each = [await reading[0]] if len(reading) == 1 else await asyncio.gather(*reading)
        found = {fields: columns for fields, (columns, _) in zip(kinds, each, strict=True)}
        lost = [c.shown for c in wanted if UNAVAILABLE in found[c.fields][c.name].ranks]
        if lost:
            raise NotReady(f"{', '.join(lost)}: the store did not answer; ask again", features=lost)
        answer = _Answer(keys, self._times)
        for column in wanted:
            answer.add(column.shown, found[column.fields][column.name])
        written = FeastAnswer(FeastMetadata(answer.names), answer.results)
        return msgspec.json.encode(written), [one for _, reads in each for one in reads]

    async def _columns(
        self,
        names: Names,
        features: Sequence[str],
        entities: Sequence[dict[str, str]],
        asking: Asking,
    ) -> tuple[Columns, Sequence[Read]]:
        if not entities:
            return {name: ListedColumn([], [], []) for name in features}, ()
        return await self._answering.columns(names, features, entities, asking)

    def _wanted(self, names: Names, request: FeastRequest) -> list[WantedColumn]:
        """The columns that a request asks for, each once."""
        if self._views is None or self._views.names is not names:
            self._views, self._known = Views(names), Memo(KEPT_BYTES)
        question = request.feature_service, tuple(request.features), request.full_feature_names
        return self._known.get(question) or self._resolve(self._views, request, question)

    def _resolve(
        self,
        views: Views,
        request: FeastRequest,
        question: tuple[str | None, tuple[str, ...], bool],
    ) -> list[WantedColumn]:
        full = request.full_feature_names
        if request.feature_service:
            service = views.service(request.feature_service)
            wanted = [_of_service(views, one, full) for one in service]
        elif request.features:
            named = [views.feature(reference) for reference in request.features]
            wanted = [
                WantedColumn(f"{view}__{name}" if full else name, name, feature.entity)
                for view, name, feature in named
            ]
        else:
            raise InvalidRequest('name "features", each as view:feature, or a "feature_service"')
        wanted = list(dict.fromkeys(wanted))
        size = sum(map(len, request.features)) + COLUMN_BYTES * len(wanted)
        return self._known.keep(question, wanted, size)


def _of_service(views: Views, feature: FeatureVersion, full: bool) -> WantedColumn:
    """A feature of a service: under its name, whichever version it is."""
    shown = f"{views.view_of(feature)}__{feature.name}" if full else feature.name
    return WantedColumn(shown, feature.ref, feature.entity)


def _keys(
    entities: Mapping[str, list[Any]], wanted: Sequence[WantedColumn]
) -> dict[str, list[str]]:
    """The key fields that features need, in the order of the request; all are of one length.

    Raises `WrongEntity` where one is not there, and `InvalidRequest`.
    """
    needed: set[str] = set()
    for column in wanted:
        for field in column.fields:
            if field not in entities:
                raise WrongEntity(
                    f"{column.name} is a feature of ({', '.join(column.fields)}): entities have no "
                    f"column {field}",
                    feature=column.name,
                    entity=list(column.fields),
                )
        needed.update(column.fields)
    keys = {name: _texts(name, values) for name, values in entities.items() if name in needed}
    counts = {name: len(values) for name, values in keys.items()}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{name} has {count}" for name, count in counts.items())
        raise InvalidRequest(f"the columns of entities must be equally long: {told}")
    if max(counts.values()) > MAX_ENTITIES:
        raise InvalidRequest(
            f"{max(counts.values())} entities; at most {MAX_ENTITIES} are taken: send several "
            "requests"
        )
    return keys


def _texts(name: str, values: list[Any]) -> list[str]:
    try:
        return msgspec.convert(values, list[Text])
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"entities, column {name}: {error}. Key fields are texts") from None


class _Answer:
    """Makes an answer of the columns that were read."""

    def __init__(self, keys: Mapping[str, list[str]], times: _Times) -> None:
        self._count = len(next(iter(keys.values())))
        self._present = [FeastStatus.PRESENT] * self._count
        self._times = times
        never = times([NO_TIME] * self._count)
        self.names = list(keys)
        self.results = [FeastColumn(list(of), self._present, never) for of in keys.values()]

    def add(self, name: str, column: ListedColumn) -> None:
        """Add a feature. A value is null with every status but PRESENT."""
        values, ranks, times = column
        self.names.append(name)
        if any(ranks):
            statuses = [BY_RANK[rank] for rank in ranks]
            shown: list[float | str | None] = [
                None if rank else v for v, rank in zip(values, ranks, strict=True)
            ]
            self.results.append(FeastColumn(shown, statuses, self._times(times)))
        else:
            self.results.append(FeastColumn(list(values), self._present, self._times(times)))


class _Times:
    """Times as text, 1970 for none.

    They have six digits of a second, and the rest is cut off: Feast knows microseconds, and its
    client on Python 3.10 reads three or six digits and no others.
    """

    def __init__(self) -> None:
        self._texts: Memo[int, str] = Memo(TIMES_BYTES)

    def __call__(self, times: Sequence[int]) -> list[str]:
        known, make = self._texts.get, self._make
        return [known(time) or make(time) for time in times]

    def _make(self, nanoseconds: int) -> str:
        text = to_rfc_3339(0 if nanoseconds == NO_TIME else nanoseconds)[: -len("789Z")] + "Z"
        return self._texts.keep(nanoseconds, text, len(text))
