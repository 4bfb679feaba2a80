"""The description of the API as JSON, and as a page that needs nothing from the internet.

The page is Swagger UI, whose files come with a package. The page's policy lets a browser load
nothing from elsewhere, run no script that stands in the page, and show it in no other page.
"""

from __future__ import annotations

import asyncio
from hashlib import blake2b
from http import HTTPStatus
from pathlib import Path

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from swagger_ui_bundle import swagger_ui_path

from serving.api.catalog_routes import is_known
from serving.api.openapi import document

POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",  # Swagger UI sets styles on its elements
        "img-src 'self' data:",  # its icons are in its style sheet
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
SECURITY = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}

PAGE = b"""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Tickwell: HTTP API</title>
<link rel="stylesheet" href="docs/swagger-ui.css">
<link rel="icon" type="image/png" href="docs/favicon-32x32.png">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/begin.js"></script>
</body>
</html>
"""

BEGIN = b"""\
window.onload = () => {
  window.ui = SwaggerUIBundle({
    url: "openapi.json",
    dom_id: "#swagger-ui",
    deepLinking: true,
    displayRequestDuration: true,
    validatorUrl: null,
  });
};
"""

FILES = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "favicon-32x32.png": "image/png",
}
"""Files of the package that the page loads, and their media types."""


class Documentation:
    """Answers what does not change while the process runs."""

    def __init__(self) -> None:
        self._document = msgspec.json.encode(document())

    def routes(self) -> list[Route]:
        """The routes."""
        return [
            Route("/openapi.json", self.openapi),
            Route("/docs", self.page),
            Route("/docs/begin.js", self.begin),
            Route("/docs/{file}", self.file),
        ]

    async def openapi(self, request: Request) -> Response:
        """The description in OpenAPI."""
        return _unchanging(request, self._document, "application/json")

    async def page(self, request: Request) -> Response:
        """The page that shows it."""
        return _unchanging(request, PAGE, "text/html")

    async def begin(self, request: Request) -> Response:
        """The script that tells Swagger UI what to show."""
        return _unchanging(request, BEGIN, "text/javascript")

    async def file(self, request: Request) -> Response:
        """A file of Swagger UI. Raises `HTTPException` for what is not among them."""
        name = request.path_params["file"]
        if name not in FILES:
            raise HTTPException(HTTPStatus.NOT_FOUND)
        content = await asyncio.to_thread(_read, name)
        return _unchanging(request, content, FILES[name])


def _read(name: str) -> bytes:
    return (Path(swagger_ui_path) / name).read_bytes()


def _unchanging(request: Request, content: bytes, media_type: str) -> Response:
    tag = blake2b(content, digest_size=16).hexdigest()
    headers = {"etag": f'W/"{tag}"', "cache-control": "no-cache", **SECURITY}
    if is_known(tag, request.headers.getlist("if-none-match")):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(content, headers=headers, media_type=media_type)
