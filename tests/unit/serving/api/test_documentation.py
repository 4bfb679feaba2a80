"""The page of the API needs nothing from elsewhere."""

from __future__ import annotations

import re
from hashlib import sha256

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from serving.api import problems
from serving.api.documentation import FILES, Documentation

OF_NPM = {
    "swagger-ui-bundle.js": "93b7b0862a80e2786f85b560be7693c2344354ffa7e7e224f850a54349724c31",
    "swagger-ui.css": "9e576f8322132c76949da47f9bb53c891373c303ea3a761ff548ffc9de50a98c",
    "favicon-32x32.png": "3ed612f41e050ca5e7000cad6f1cbe7e7da39f65fca99c02e99e6591056e5837",
}
"""SHA-256 of the files of swagger-ui-dist 5.31.0, which its makers publish on npm."""


@pytest.fixture
def client() -> TestClient:
    app = Starlette(routes=Documentation().routes(), exception_handlers=dict(problems.HANDLERS))
    return TestClient(app)


def test_all_that_the_page_loads_is_here(client: TestClient) -> None:
    page = client.get("/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert set(loaded) == {f"docs/{name}" for name in (*FILES, "begin.js")}
    for path in loaded:
        assert client.get(f"/{path}").status_code == 200
    assert 'url: "openapi.json"' in client.get("/docs/begin.js").text
    assert client.get("/openapi.json").json()["openapi"] == "3.1.0"


def test_the_page_runs_nothing_that_stands_in_it(client: TestClient) -> None:
    page = client.get("/docs")
    policy = dict(
        one.strip().split(" ", 1) for one in page.headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == "'self'"
    assert re.findall(r"<script(?![^>]*src=)|\son\w+=|<style|style=", page.text) == []


def test_the_files_are_those_of_their_makers(client: TestClient) -> None:
    found = {name: sha256(client.get(f"/docs/{name}").content).hexdigest() for name in FILES}
    assert found == OF_NPM


def test_the_kinds_of_files(client: TestClient) -> None:
    for name, kind in FILES.items():
        answer = client.get(f"/docs/{name}")
        assert answer.headers["content-type"].split(";")[0] == kind
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("name", ["index.html", "..%2f__init__.py", "swagger-ui.js", "%2e%2e", ""])
def test_no_other_file_is_served(client: TestClient, name: str) -> None:
    assert client.get(f"/docs/{name}", follow_redirects=False).status_code in (307, 404)


@pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/docs/swagger-ui.css"])
def test_what_a_browser_knows_is_not_sent_again(client: TestClient, path: str) -> None:
    tag = client.get(path).headers["etag"]
    assert client.get(path, headers={"if-none-match": tag}).status_code == 304
    assert client.head(path).status_code == 200
