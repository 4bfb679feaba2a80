"""An empty Starlette route: `python -m benchmarks.peers.empty_route PORT stock|ours`.

`stock` is uvicorn as it ships, `ours` the HTTP protocol of Tickwell's server: what each request
costs before anything is answered.
"""

from __future__ import annotations

import sys
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serving.api.connections import Connection


async def empty(request: Request) -> Response:
    """The body is read, and nothing done with it."""
    await request.body()
    return Response(b"{}", media_type="application/json")


if __name__ == "__main__":
    port, protocol = sys.argv[1:]
    paths = ("/features/online", "/features/batch")
    app = Starlette(routes=[Route(path, empty, methods=["POST"]) for path in paths])
    settings: dict[str, Any] = {"log_level": "warning", "access_log": False}
    if protocol == "ours":
        settings |= {"http": Connection, "ws": "none", "proxy_headers": False}
    uvicorn.run(app, host="127.0.0.1", port=int(port), **settings)
