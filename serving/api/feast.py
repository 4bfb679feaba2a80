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

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from registry.formats.status import RANK, Status
from serving.api.answering import Answering
from serving.api.memo import Memo
from serving.api.requests import MAX_ENTITIES, MAX_FEATURES, Text, parse
from serving.errors import InvalidRequest, NotReady, WrongEntity
from serving.features.columns import NO_TIME
from serving.features.lookup import Names
from serving.features.table import AnswerTable, FeatureColumn
from serving.features.views import Views

PATH = "/get-online-features"

KEPT_BYTES = 4_000_000
"""Bytes of all questions that are kept, about."""

COLUMN_BYTES = 300
"""What a column of a question takes beside its names, about."""

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
OK, UNAVAILABLE = RANK[Status.OK], RANK[Status.UNAVAILABLE]


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
        self._views: Views | None = None
        self._known: Memo[tuple[str | None, tuple[str, ...], bool], list[WantedColumn]]

    async def answer(self, body: bytes) -> bytes:
        """The answer to a `FeastRequest`.

        Raises `InvalidRequest`, `UnknownFeature`, `WrongEntity` and, where a value could not be
        read, `NotReady`: Feast has no status for that.
        """
        request = parse(body, FeastRequest)
        names = self._answering.names
        wanted = self._wanted(names, request)
        keys = _keys(request.entities, wanted)
        count = len(next(iter(keys.values())))
        tables: dict[tuple[str, ...], AnswerTable] = {}
        for fields in dict.fromkeys(column.fields for column in wanted if count):
            features = list(dict.fromkeys(c.name for c in wanted if c.fields == fields))
            rows = zip(*[keys[field] for field in fields], strict=True)
            entities = [dict(zip(fields, row, strict=True)) for row in rows]
            tables[fields] = await self._answering.table(names, features, entities)
        return msgspec.json.encode(_answer(keys, wanted, tables))

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
        if request.feature_service is not None:
            service = views.service(request.feature_service)
            features = [(views.view_of(one), one.name, one) for one in service]
        elif request.features:
            features = [views.feature(reference) for reference in request.features]
        else:
            raise InvalidRequest('name "features", each as view:feature, or a "feature_service"')
        full = request.full_feature_names
        wanted = [
            WantedColumn(f"{view}__{name}" if full else name, name, feature.entity)
            for view, name, feature in features
        ]
        wanted = list(dict.fromkeys(wanted))
        size = sum(map(len, request.features)) + COLUMN_BYTES * len(wanted)
        return self._known.keep(question, wanted, size)


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


def _answer(
    keys: Mapping[str, list[str]],
    wanted: Sequence[WantedColumn],
    tables: Mapping[tuple[str, ...], AnswerTable],
) -> FeastAnswer:
    """The answer; without entities there are no tables. Raises `NotReady`."""
    count = len(next(iter(keys.values())))
    present, never = [FeastStatus.PRESENT] * count, _times(np.full(count, NO_TIME))
    results = [FeastColumn(list(values), present, never) for values in keys.values()]
    times = {
        (fields, label): _times(column)
        for fields, table in tables.items()
        for label, column in table.times.items()
    }
    lost = []
    for column in wanted:
        if not count:
            results.append(FeastColumn([], [], []))
            continue
        found = tables[column.fields].features[column.name]
        if (found.ranks == UNAVAILABLE).any():
            lost.append(column.shown)
            continue
        statuses = (
            [BY_RANK[rank] for rank in found.ranks.tolist()] if found.ranks.any() else present
        )
        results.append(FeastColumn(_values(found), statuses, times[column.fields, found.times]))
    if lost:
        raise NotReady(f"{', '.join(lost)}: the store did not answer; ask again", features=lost)
    shown = [*keys, *(column.shown for column in wanted)]
    return FeastAnswer(FeastMetadata(shown), results)


def _values(found: FeatureColumn) -> list[float | str | None]:
    """The values, NaN for each that is not PRESENT; JSON has null there."""
    values: list[float | str | None] = np.where(found.ranks == OK, found.values, np.nan).tolist()
    return values


def _times(nanoseconds: NDArray[np.int64]) -> list[str]:
    """Times as text, 1970 for none.

    They have six digits of a second, and the rest is cut off: Feast knows microseconds, and its
    client on Python 3.10 reads three or six digits and no others.
    """
    known = np.where(nanoseconds == NO_TIME, 0, nanoseconds)
    texts: list[str] = np.datetime_as_string(
        known.astype("datetime64[ns]"), unit="us", timezone="UTC", casting="same_kind"
    ).tolist()
    return texts
