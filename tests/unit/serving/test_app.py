"""Every route by every method, before anything was read from a store."""

from __future__ import annotations

import json

import pytest
from starlette.testclient import TestClient

from serving.app import ServerOptions, create_app

NOBODY = "redis://127.0.0.1:1/0"
READING = ["/features", "/features/a", "/features/a/audit", "/health", "/health/live"]
READING += ["/health/ready", "/metrics", "/openapi.json", "/docs", "/docs/begin.js"]


@pytest.fixture
def client() -> TestClient:
    app = create_app(ServerOptions(NOBODY, NOBODY, "postgresql://u:p@127.0.0.1:1/none"))
    return TestClient(app)


@pytest.mark.parametrize("path", READING)
def test_what_has_get_has_head_and_nothing_else(client: TestClient, path: str) -> None:
    get, head = client.get(path), client.head(path)
    assert (head.status_code, head.content) == (get.status_code, b"")
    if path != "/metrics":  # figures of the process, which are others a moment later
        assert head.headers["content-length"] == get.headers["content-length"]
    for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        refused = client.request(method, path)
        assert refused.status_code == 405
        assert set(refused.headers["allow"].split(", ")) == {"GET", "HEAD"}
        assert refused.headers["content-type"] == "application/problem+json"


def test_what_is_read_and_posted_to_has_both(client: TestClient) -> None:
    refused = client.put("/features/a/versions")
    assert refused.status_code == 405
    assert set(refused.headers["allow"].split(", ")) == {"GET", "HEAD", "POST"}


@pytest.mark.parametrize("path", ["/features/online", "/features/batch"])
def test_what_has_post_has_nothing_else(client: TestClient, path: str) -> None:
    """`online` and `batch` are no names of features."""
    for method in ("GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"):
        refused = client.request(method, path)
        assert (refused.status_code, refused.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize("path", ["/", "/nowhere", "/features/", "/features/a/b", "/docs/"])
def test_a_path_that_no_route_has(client: TestClient, path: str) -> None:
    answer = client.get(path, follow_redirects=False)
    assert answer.status_code == 404
    assert f"no {path}:" in answer.json()["detail"]


def test_a_long_path_is_not_repeated(client: TestClient) -> None:
    assert len(client.get("/" + "a" * 60_000).content) < 500


@pytest.mark.parametrize("path", ["/features/online", "/features/batch"])
def test_a_body_in_an_unknown_coding_is_told_which_are_known(client: TestClient, path: str) -> None:
    answer = client.post(path, content=json.dumps({}), headers={"content-encoding": "br"})
    assert (answer.status_code, answer.headers["accept-encoding"]) == (415, "zstd, gzip")
