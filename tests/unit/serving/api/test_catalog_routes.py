"""Which features there are, and whether what a client knows of them still holds."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from threading import get_ident
from typing import Any

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route
from starlette.testclient import TestClient

from registry.definitions import Catalog, FeatureVersion
from registry.features_file import read
from registry.naming import ROUTES
from serving.api import problems
from serving.api.catalog_routes import FEATURE, CatalogRoutes
from tests.support.apps import in_a_loop
from tests.support.served import catalog_of
from tests.support.watches import FixedCatalog

SHIPPED = catalog_of(read())
SYMBOL = [
    *("current_price", "current_volume", "price_sma_20", "price_sma_5", "price_volatility"),
    "volume_sma_10",
]


def with_more() -> Catalog:
    """The shipped features, one of them in three more versions, and one that has no active one."""
    old = SHIPPED.features["price_sma_5@1.0.0"]
    change = msgspec.structs.replace
    added = [
        change(old, version="1.10.0", tags=("risk", "fast"), owner="desk"),
        change(old, version="1.9.0", expression="mean(price, 6)"),
        change(old, version="0.1.0"),
        change(old, name="waiting", version="2.0.0"),
    ]
    features = SHIPPED.features | {feature.ref: feature for feature in added}
    active = SHIPPED.active | {"price_sma_5": "1.10.0"}
    return change(SHIPPED, features=features, active=active)


def client_of(catalog: Catalog | None) -> tuple[TestClient, FixedCatalog]:
    watch: Any = FixedCatalog(catalog)
    known = CatalogRoutes(watch)
    routes = [*known.routes(), Route(f"{FEATURE}/versions", known.versions)]
    app = Starlette(routes=routes, exception_handlers=dict(problems.HANDLERS))
    app.router.redirect_slashes = False
    return TestClient(app), watch


@pytest.fixture
def client() -> TestClient:
    made, _ = client_of(with_more())
    return made


def names(client: TestClient, query: str = "") -> list[str]:
    answer = client.get(f"/features{query}")
    assert answer.status_code == 200, answer.text
    return [feature["name"] for feature in answer.json()["features"]]


def test_all_active_features_by_name(client: TestClient) -> None:
    found = client.get("/features").json()["features"]
    assert [feature["name"] for feature in found] == sorted(SHIPPED.active)
    by_name = {feature["name"]: feature for feature in found}
    assert by_name["price_sma_5"] == {
        "name": "price_sma_5",
        "version": "1.10.0",
        "entity": ["symbol"],
        "source": "price",
        "description": "Mean of the last 5 prices.",
        "owner": "desk",
        "tags": ["risk", "fast"],
        "aliases": [],
        "max_age_seconds": 60,
        "unit": "",
    }
    assert by_name["price_volatility"]["aliases"] == ["volatility"]
    assert (by_name["position_size"]["max_age_seconds"]) is None
    assert (by_name["portfolio_exposure"]["source"]) is None


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("?entity=symbol", SYMBOL),
        ("?entity=portfolio", ["portfolio_exposure", "portfolio_exposure_net"]),
        ("?entity=symbol,portfolio", ["position_multiplier", "position_size"]),
        ("?entity=portfolio%2Csymbol", ["position_multiplier", "position_size"]),
        ("?tag=risk", ["price_sma_5"]),
        ("?tag=fast&tag=risk&entity=symbol", ["price_sma_5"]),
        ("?tag=risk&tag=slow", []),
        ("?tag=risk&entity=portfolio", []),
        ("?entity=sector", []),
    ],
)
def test_filters(client: TestClient, query: str, expected: list[str]) -> None:
    assert names(client, query) == expected


@pytest.mark.parametrize(
    "query",
    ["?entity=", "?entity=a,", "?tag=", "?owner=desk", "?entity=symbol&entity=portfolio", "?all"],
)
def test_what_the_route_does_not_take(client: TestClient, query: str) -> None:
    assert client.get(f"/features{query}").status_code == 422


def test_one_feature_by_name_pin_and_alias(client: TestClient) -> None:
    active = client.get("/features/price_sma_5").json()
    assert (active["version"], active["active"]) == ("1.10.0", True)
    pinned = client.get("/features/price_sma_5@1.9.0").json()
    assert (pinned["expression"], pinned["active"]) == ("mean(price, 6)", False)
    alias = client.get("/features/volatility@1.0.0").json()
    assert alias["name"] == "price_volatility"
    exposure = client.get("/features/portfolio_exposure").json()
    assert exposure["over"] == "position"
    assert sorted(exposure["parts"]) == [
        "current_price@1.0.0",
        "position_multiplier@1.0.0",
        "position_size@1.0.0",
    ]
    assert client.get("/features/waiting").status_code == 404
    assert client.get("/features/waiting@2.0.0").json()["active"] is False


def test_versions_by_number_and_not_by_text(client: TestClient) -> None:
    for name in ("price_sma_5", "price_sma_5@0.1.0"):
        found = client.get(f"/features/{name}/versions").json()
        assert (found["name"], found["active"]) == ("price_sma_5", "1.10.0")
        versions = [(one["version"], one["active"]) for one in found["versions"]]
        assert versions == [("0.1.0", False), ("1.0.0", False), ("1.9.0", False), ("1.10.0", True)]
    waiting = client.get("/features/waiting@2.0.0/versions").json()
    assert (waiting["active"], len(waiting["versions"])) == (None, 1)


@pytest.mark.parametrize("path", ["/features/nope", "/features/nope/versions"])
def test_a_feature_that_is_not_there(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.json()["feature"]) == (404, "nope")


def test_no_route_is_a_feature_and_no_name_is_without_bound(client: TestClient) -> None:
    for name in (*ROUTES, "a" * 129, "a" * 50_000, "a/b", ""):
        answer = client.get(f"/features/{name}")
        assert (answer.status_code, "feature" in answer.json()) == (404, False), name
        assert len(answer.content) < 1_000
    assert client.get("/features/" + "a" * 128).json()["feature"] == "a" * 128


PATHS = [
    "/features",
    "/features?entity=symbol",
    "/features/volatility",
    "/features/volatility/versions",
]


@pytest.mark.parametrize("path", PATHS)
def test_what_a_client_knows_is_not_sent_again(path: str) -> None:
    client, _ = client_of(SHIPPED)
    first = client.get(path)
    tag = first.headers["etag"]
    for known in (tag, tag.removeprefix("W/"), f'"a", {tag}', "*"):
        again = client.get(path, headers={"if-none-match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    other, _ = client_of(with_more())
    for known in (tag, '"a"', ""):
        changed = other.get(path, headers={"if-none-match": known})
        assert changed.status_code == 200
        assert changed.headers["etag"] != tag
    same, _ = client_of(msgspec.json.decode(msgspec.json.encode(SHIPPED), type=Catalog))
    assert same.get(path).headers["etag"] == tag, "two servers tell of one catalog alike"


def test_what_a_client_knows_ends_with_its_catalog() -> None:
    client, watch = client_of(SHIPPED)
    tag = client.get("/features").headers["etag"]
    watch.become(with_more())
    changed = client.get("/features", headers={"if-none-match": tag})
    assert (changed.status_code, len(changed.json()["features"])) == (200, len(SHIPPED.active))
    watch.become(SHIPPED)
    assert client.get("/features", headers={"if-none-match": tag}).status_code == 304


def test_any_change_of_what_is_said_is_another_tag() -> None:
    feature = SHIPPED.features["price_sma_5@1.0.0"]
    changes: list[dict[str, Any]] = [
        {"description": "a"},
        {"owner": "b"},
        {"tags": ("c",)},
        {"aliases": ("d",)},
        {"max_age_ns": None},
        {"expression": "mean(price, 4)"},
    ]
    tags = set()
    for change in ({}, *changes):
        changed: FeatureVersion = msgspec.structs.replace(feature, **change)
        features = SHIPPED.features | {feature.ref: changed}
        client, _ = client_of(msgspec.structs.replace(SHIPPED, features=features))
        tags.add(client.get("/features").headers["etag"])
    assert len(tags) == len(changes) + 1


class Walked(dict[str, Any]):
    """The versions of features, which note the threads in which they are walked."""

    threads: list[int]

    def __iter__(self) -> Iterator[str]:
        self.threads.append(get_ident())
        return super().__iter__()


@in_a_loop
async def test_a_catalog_is_walked_for_its_tag_once_and_beside_the_event_loop() -> None:
    """However many ask at once: nobody who asks for a value waits for it."""
    watch: Any = FixedCatalog(SHIPPED)
    walked = Walked(watch.names.of_name)
    walked.threads = []
    watch.names.of_name = walked
    known = CatalogRoutes(watch)
    scope = {"type": "http", "method": "GET", "query_string": b"", "headers": []}
    answers = await asyncio.gather(*(known.features(Request(scope)) for _ in range(5)))
    assert len({answer.headers["etag"] for answer in answers}) == 1
    assert len(walked.threads) == 1
    assert get_ident() not in walked.threads


def test_head_and_other_methods(client: TestClient) -> None:
    for path in PATHS:
        get, head = client.get(path), client.head(path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == get.headers["content-length"]
        refused = client.post(path)
        assert refused.status_code == 405
        assert set(refused.headers["allow"].split(", ")) == {"GET", "HEAD"}


def test_before_there_is_a_catalog() -> None:
    client, _ = client_of(None)
    for path in PATHS:
        assert client.get(path).status_code == 503
