"""Feast's route: its form, its statuses, and the same values as the other routes have."""

from __future__ import annotations

import asyncio
import gzip
import json
import math
import struct
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from registry.features_file import read
from registry.formats.origin import Origin
from registry.formats.row import Row, ValueStatus, pack
from registry.formats.status import Status
from serving.api import problems
from serving.api.admission import Admission
from serving.api.answering import Answering
from serving.api.deadlines import Deadlines
from serving.api.feast import FeastAnswer, FeastRoute
from serving.api.feature_routes import feast_route
from serving.api.requests import MAX_ENTITIES
from serving.errors import (
    InvalidRequest,
    NotReady,
    ServingError,
    UnknownFeature,
    WrongEntity,
)
from serving.features.lookup import Names
from serving.features.reader import Reader
from serving.metrics import Metrics
from serving.stores.row_store import Packed, RowId, Tier, TieredRows
from tests.oracle.times import rfc_3339
from tests.support.row_stores import MemoryStore
from tests.support.served import catalog_of

CATALOG = catalog_of(read())
EPOCH = "1970-01-01T00:00:00.000000Z"
NAMES = {
    "ok": "PRESENT",
    "stale": "OUTSIDE_MAX_AGE",
    "lagging": "OUTSIDE_MAX_AGE",
    "warming": "NULL_VALUE",
    "undefined": "NULL_VALUE",
    "missing": "NOT_FOUND",
}
"""Feast's status by ours, as the README has it."""

PRICES = ["current_price", "price_sma_5", "price_sma_20", "price_volatility"]


class Watch:
    """A catalog, and workers that are late in some topics."""

    def __init__(self, late: Sequence[str] = ()) -> None:
        self.names = Names(CATALOG)
        self.late = set(late)

    @property
    def lag(self) -> Watch:
        return self

    def on_time_until(self, topic: str, sink: str) -> float:
        return 0.0 if topic in self.late else math.inf


class Store(MemoryStore):
    """Rows in memory that are read by name, as prepared questions read them."""

    def __init__(self, rows: Mapping[RowId, Packed]) -> None:
        super().__init__(rows)
        self._by_name = {self.name(row): packed for row, packed in rows.items()}

    def name(self, row: RowId) -> bytes:
        return "\x1f".join((row.source, *row.entity)).encode()

    async def named_rows(self, wanted: Sequence[tuple[str, Sequence[bytes]]]) -> list[TieredRows]:
        return [
            TieredRows([self._by_name.get(name) for name in names], Tier.WARM)
            for _, names in wanted
        ]


def row(source: str, *values: float, time_ns: int = 0, statuses: bytes | None = None) -> bytes:
    origin = Origin(bytes(16), 0, 0, 0)
    status = bytes(len(values)) if statuses is None else statuses
    return pack(Row(CATALOG.writing[source], time_ns, 0, 0, origin, status, values))


def answering(
    rows: Mapping[RowId, Packed], late: Sequence[str] = (), *, prepared: bool = True
) -> Answering:
    store, watch = Store(rows), Watch(late)
    served: Counter[str] = Counter()
    return Answering(Reader(store), store if prepared else None, watch, watch, served)  # type: ignore[arg-type]


def asked(answers: Answering, features: Sequence[str] | None = None, **request: Any) -> Any:
    """What is answered to a request, parsed."""
    named = {} if features is None else {"features": features}
    body = json.dumps({**named, **request}).encode()
    return json.loads(asyncio.run(FeastRoute(answers).answer(body))[0])


def columns(answer: Any) -> dict[str, Any]:
    """The columns of an answer by name."""
    names = answer["metadata"]["feature_names"]
    return dict(zip(names, answer["results"], strict=True))


def now_ns() -> int:
    return time.time_ns() - 10**9


@pytest.mark.parametrize("prepared", [True, False], ids=["prepared", "by the reader"])
def test_the_form_of_an_answer(prepared: bool) -> None:
    moment = now_ns() // 1_000 * 1_000
    prices = row("price", 189.0, 188.5, math.nan, 0.25, time_ns=moment + 789, statuses=b"\0\0\1\0")
    answers = answering({RowId("price", ("AAPL",)): prices}, prepared=prepared)
    answer = asked(
        answers,
        ["price:current_price", "price:price_sma_20", "price:volatility"],
        entities={"symbol": ["AAPL", "NONE"]},
    )
    text = (datetime(1970, 1, 1) + timedelta(microseconds=moment // 1_000)).isoformat(
        timespec="microseconds"
    ) + "Z"
    assert answer == {
        "metadata": {"feature_names": ["symbol", "current_price", "price_sma_20", "volatility"]},
        "results": [
            {
                "values": ["AAPL", "NONE"],
                "statuses": ["PRESENT", "PRESENT"],
                "event_timestamps": [EPOCH, EPOCH],
            },
            {
                "values": [189.0, None],
                "statuses": ["PRESENT", "NOT_FOUND"],
                "event_timestamps": [text, EPOCH],
            },
            {
                "values": [None, None],
                "statuses": ["NULL_VALUE", "NOT_FOUND"],
                "event_timestamps": [text, EPOCH],
            },
            {
                "values": [0.25, None],
                "statuses": ["PRESENT", "NOT_FOUND"],
                "event_timestamps": [text, EPOCH],
            },
        ],
    }
    for times in (one["event_timestamps"] for one in answer["results"]):
        # as Feast's client reads it, on every Python that it supports
        assert all(datetime.fromisoformat(t.replace("Z", "+00:00")).tzinfo == UTC for t in times)
        assert {len(t) for t in times} == {len("2026-11-24T13:05:46.264000Z")}


FINITE = st.floats(allow_nan=False, allow_infinity=False)
STORED = st.sampled_from(list(ValueStatus))
AGES = st.sampled_from([0, 59, 61, 10**6])
SYMBOLS = ["A", "B", "C"]
ROWS = st.tuples(
    st.lists(FINITE | st.sampled_from([-0.0, 190.0, 1e22, 5e-324]), min_size=4, max_size=4),
    st.lists(STORED, min_size=4, max_size=4),
    AGES,
)


@given(
    st.dictionaries(st.sampled_from(SYMBOLS), ROWS),
    st.lists(st.sampled_from([*SYMBOLS, "D"]), min_size=1, max_size=5),
    st.lists(st.sampled_from([*PRICES, "volatility", "price_sma_5@1.0.0"]), min_size=1),
    st.booleans(),
    st.booleans(),
)
@example({"A": ([190.0] * 4, [ValueStatus.OK] * 4, 0)}, ["A", "A"], PRICES, False, True)
def test_values_and_statuses_are_those_of_a_batch(
    stored: dict[str, Any], symbols: list[str], features: list[str], late: bool, prepared: bool
) -> None:
    """To the bit, where there is a value; and what Feast's client would take for one is null."""
    moment = now_ns()
    rows = {
        RowId("price", (symbol,)): row(
            "price",
            *(v if s is ValueStatus.OK else math.nan for v, s in zip(values, found, strict=True)),
            time_ns=moment - age * 10**9,
            statuses=bytes(found),
        )
        for symbol, (values, found, age) in stored.items()
    }
    answers = answering(rows, ["ticks.price"] if late else [], prepared=prepared)
    request = {"features": features, "entities": [{"symbol": symbol} for symbol in symbols]}
    answer = asyncio.run(answers.many(json.dumps(request).encode()))
    batch = json.loads(answer[0])["results"]
    body = {"features": [f"price:{f}" for f in features], "entities": {"symbol": symbols}}
    text = asyncio.run(FeastRoute(answers).answer(json.dumps(body).encode()))[0]
    msgspec.json.decode(text, type=FeastAnswer)
    found_columns = columns(json.loads(text))
    assert list(found_columns) == ["symbol", *dict.fromkeys(features)]
    for name in features:
        column = found_columns[name]
        for i, entity in enumerate(batch):
            expected = entity["features"][name]
            assert column["statuses"][i] == NAMES[expected["status"]]
            value = expected["value"] if expected["status"] == "ok" else None
            assert bits(column["values"][i]) == bits(value)
            at = expected["event_time"]
            whole = 0 if at is None else (rfc_3339(at) or 0) // 1_000 * 1_000
            assert rfc_3339(column["event_timestamps"][i]) == whole


def bits(value: Any) -> bytes | None:
    """The bits of a float; anything else than a float or null is refused, as an integer is."""
    if value is None:
        return None
    assert type(value) is float
    return struct.pack(">d", value)


@given(FINITE)
@example(190.0)
@example(1e22)
@example(-0.0)
def test_every_value_is_a_float_to_a_reader_that_takes_types_from_the_text(value: float) -> None:
    prices = {RowId("price", ("A",)): row("price", value, 1.0, 1.0, 1.0, time_ns=now_ns())}
    answer = asked(answering(prices), ["price:current_price"], entities={"symbol": ["A"]})
    (found,) = columns(answer)["current_price"]["values"]
    assert bits(found) == bits(value)


def test_each_feature_takes_the_key_fields_of_its_own_kind() -> None:
    moment = now_ns()
    rows = {
        RowId("price", ("A",)): row("price", 2.5, 1.0, 1.0, 1.0, time_ns=moment),
        RowId("position", ("P", "A")): row("position", 7.0, 1.0, time_ns=moment),
        RowId("position", ("Q", "A")): row("position", 8.0, 1.0, time_ns=moment),
    }
    answer = asked(
        answering(rows),
        ["position:position_size", "price:current_price"],
        entities={"portfolio": ["P", "Q", "P"], "symbol": ["A", "A", "B"], "further": [1]},
        full_feature_names=True,
    )
    found = {name: one["values"] for name, one in columns(answer).items()}
    assert found == {
        "portfolio": ["P", "Q", "P"],
        "symbol": ["A", "A", "B"],
        "position__position_size": [7.0, 8.0, None],
        "price__current_price": [2.5, 2.5, None],
    }


def test_a_key_field_that_no_feature_needs_is_passed_over() -> None:
    answer = asked(
        answering({}),
        ["price:current_price"],
        entities={"portfolio": ["P", 5, None], "symbol": ["A"]},
        include_feature_view_version_metadata=True,
        feature_service=None,
    )
    assert answer["metadata"]["feature_names"] == ["symbol", "current_price"]


def test_a_service_has_all_active_features_of_a_kind() -> None:
    answer = asked(answering({}), feature_service="symbol", entities={"symbol": ["A"]}, features=[])
    expected = [f.name for f in CATALOG.features.values() if f.entity == ("symbol",)]
    assert answer["metadata"]["feature_names"] == ["symbol", *expected]


def test_no_entities_have_no_values() -> None:
    answer = asked(answering({}), ["price:current_price"], entities={"symbol": []})
    nothing: dict[str, Any] = {"values": [], "statuses": [], "event_timestamps": []}
    assert columns(answer) == {"symbol": nothing, "current_price": nothing}


@pytest.mark.parametrize("prepared", [True, False], ids=["prepared", "by the reader"])
def test_what_could_not_be_read_is_an_error(prepared: bool) -> None:
    """Feast has no status for it, and a null would be one that a model was trained with."""
    prices = {
        RowId("price", ("A",)): row("price", 1.0, 1.0, 1.0, 1.0, time_ns=now_ns()),
        RowId("price", ("B",)): b"junk",
    }
    answers = answering(prices, prepared=prepared)
    with pytest.raises(NotReady, match="current_price: the store did not answer"):
        asked(answers, ["price:current_price"], entities={"symbol": ["A", "B"]})
    asked(answers, ["price:current_price"], entities={"symbol": ["A"]})


ONE = {"symbol": ["A"]}


@pytest.mark.parametrize(
    ("request_", "error", "told"),
    [
        ({"features": ["price:current_price"]}, InvalidRequest, "entities"),
        ({"entities": ONE}, InvalidRequest, 'name "features"'),
        ({"entities": ONE, "features": ["current_price"]}, InvalidRequest, "ask for price:current"),
        ({"entities": ONE, "features": ["volume:current_price"]}, UnknownFeature, "for price:"),
        ({"entities": ONE, "features": ["prices:current_price"]}, UnknownFeature, "no view"),
        ({"entities": ONE, "features": ["price:cur_price"]}, UnknownFeature, "current_price"),
        ({"entities": ONE, "features": ["price@v2:current_price"]}, UnknownFeature, "no versions"),
        ({"entities": ONE, "feature_service": "all"}, UnknownFeature, "symbol"),
        ({"entities": ONE, "features": ["position:position_size"]}, WrongEntity, "portfolio"),
        ({"entities": {}, "features": ["price:current_price"]}, WrongEntity, "symbol"),
        (
            {"entities": {"symbol": [5]}, "features": ["price:current_price"]},
            InvalidRequest,
            "column symbol: Expected `str`, got `int`",
        ),
        (
            {
                "entities": {"portfolio": ["P"], "symbol": ["A", "B"]},
                "features": ["position:position_size"],
            },
            InvalidRequest,
            "portfolio has 1, symbol has 2",
        ),
        (
            {
                "entities": {"symbol": ["A"] * (MAX_ENTITIES + 1)},
                "features": ["price:current_price"],
            },
            InvalidRequest,
            f"at most {MAX_ENTITIES}",
        ),
        (
            {"entities": ONE, "features": [f"price:f{i}" for i in range(101)]},
            InvalidRequest,
            "features",
        ),
    ],
)
def test_a_callers_mistake_is_told_and_is_no_5xx(
    request_: dict[str, Any], error: type[ServingError], told: str
) -> None:
    """Feast's client asks four times after a 5xx, and then loses the text."""
    with pytest.raises(error) as raised:
        asked(answering({}), **request_)
    assert type(raised.value) is error
    assert told in raised.value.detail
    assert 400 <= problems.status_of(raised.value) < 500


def test_a_changed_catalog_answers_the_next_request() -> None:
    store, watch = Store({}), Watch()
    route = FeastRoute(Answering(Reader(store), store, watch, watch, Counter()))  # type: ignore[arg-type]
    body = json.dumps({"features": ["price:current_price"], "entities": ONE}).encode()
    asyncio.run(route.answer(body))
    features = CATALOG.features.items()
    left = {ref: f for ref, f in features if f.name != "current_price" and not f.derived}
    active = {name: v for name, v in CATALOG.active.items() if f"{name}@{v}" in left}
    watch.names = Names(msgspec.structs.replace(CATALOG, features=left, active=active))
    with pytest.raises(UnknownFeature):
        asyncio.run(route.answer(body))


def test_every_status_has_a_name_in_feasts_words() -> None:
    assert set(NAMES) >= {status.value for status in Status} - {"unavailable"}


@pytest.mark.parametrize("compress", [True, False])
def test_a_large_answer_is_compressed_where_the_server_is_told_so(compress: bool) -> None:
    body = json.dumps(
        {"features": ["price:current_price"], "entities": {"symbol": ["AAPL"] * MAX_ENTITIES}}
    ).encode()
    bounds = Admission(1), Deadlines(60_000)
    route = feast_route(answering({}), Metrics(list), bounds, compress)
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"accept-encoding", b"gzip")]
    scope = {"type": "http", "method": "POST", "query_string": b"", "headers": headers}
    asyncio.run(route(scope, receive, send))
    start, content = sent
    assert start["status"] == 200
    assert (dict(start["headers"]).get(b"content-encoding") == b"gzip") is compress
    text = gzip.decompress(content["body"]) if compress else content["body"]
    assert json.loads(text)["metadata"]["feature_names"] == ["symbol", "current_price"]


class Together(Store):
    """Answers no read before two are there."""

    def __init__(self, rows: Mapping[RowId, Packed]) -> None:
        super().__init__(rows)
        self._both = asyncio.Barrier(2)

    async def named_rows(self, wanted: Sequence[tuple[str, Sequence[bytes]]]) -> list[TieredRows]:
        await self._both.wait()
        return await super().named_rows(wanted)


def test_several_kinds_of_entities_are_read_together() -> None:
    """So that they take no longer than the one that takes longest."""
    store, watch = Together({}), Watch()
    answers = Answering(Reader(store), store, watch, watch, Counter())  # type: ignore[arg-type]
    body = {
        "features": ["position:position_size", "price:current_price"],
        "entities": {"portfolio": ["P"], "symbol": ["A"]},
    }

    async def ask() -> Any:
        async with asyncio.timeout(5):
            return (await FeastRoute(answers).answer(json.dumps(body).encode()))[0]

    assert len(json.loads(asyncio.run(ask()))["results"]) == 4
