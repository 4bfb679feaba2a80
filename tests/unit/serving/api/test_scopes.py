"""Which scope a request needs, over every route that the application has, and any path."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.routing import Route

from serving.api.scopes import scope_needed
from serving.app import ServerOptions, create_app

NOWHERE = "redis://127.0.0.1:1/0"
OPEN = {"/health", "/health/live", "/health/ready", "/metrics"}
ASKED = {"/features/online", "/features/batch", "/features/offline", "/get-online-features"}
METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "QUERY", "get", "")


def paths() -> list[str]:
    options = ServerOptions(NOWHERE, NOWHERE, "postgresql://u:p@127.0.0.1:1/none")
    routes = create_app(options).routes
    found = [route.path for route in routes if isinstance(route, Route)]
    assert len(found) == len(routes)  # nothing is mounted that this does not see
    return sorted({*found, *OPEN, *ASKED})


@pytest.mark.parametrize("path", paths())
def test_every_route_of_the_application(path: str) -> None:
    for method in METHODS:
        safe = method in ("GET", "HEAD", "OPTIONS")
        if safe and path in OPEN:
            expected = None
        elif safe or (method == "POST" and path in ASKED):
            expected = "read"
        else:
            expected = "write"
        assert scope_needed(method, path) == expected, method


@given(st.sampled_from(METHODS), st.text() | st.sampled_from([*OPEN, *ASKED, "/keys", "/keys/1"]))
def test_no_path_is_open_but_those_for_load_balancers_and_prometheus(
    method: str, path: str
) -> None:
    needed = scope_needed(method, path)
    if needed is None:
        assert method in ("GET", "HEAD", "OPTIONS")
        assert path in OPEN or path.startswith("/health/")
    if path == "/keys" or path.startswith("/keys/"):
        assert needed == "admin"
    if method not in ("GET", "HEAD", "OPTIONS") and path not in ASKED:
        assert needed in ("write", "admin")


@pytest.mark.parametrize(
    "path", ["/healthy", "/metrics/", "/Health", "//health", "/features/health", "/health%2f", ""]
)
def test_what_only_looks_open_needs_a_key(path: str) -> None:
    assert scope_needed("GET", path) == "read"
