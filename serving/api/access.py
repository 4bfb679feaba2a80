"""What a request passes before anything answers it: CORS where it is wanted, then the API key."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.types import Receive, Scope, Send

from serving.api.authentication import Authentication
from serving.api.exchanges import EXCHANGE
from serving.metrics import Metrics
from serving.watch.api_keys import ApiKeysWatch

METHODS = ("GET", "HEAD", "POST")
REQUEST_HEADERS = (
    *("authorization", "x-api-key", "content-type", "content-encoding", "if-none-match"),
    *("x-request-id", "x-deadline-ms", "x-consumer"),
)
ANSWER_HEADERS = ("etag", "retry-after", "www-authenticate", "x-request-id")


class PagesOfOthers(CORSMiddleware):
    """CORS, which adds its headers to what is sent: no answer may be written past that."""

    async def simple_response(
        self, scope: Scope, receive: Receive, send: Send, request_headers: Headers
    ) -> None:
        extensions = scope.get("extensions") or {}
        scope["extensions"] = {name: ext for name, ext in extensions.items() if name != EXCHANGE}
        await super().simple_response(scope, receive, send, request_headers)


def access(
    keys: ApiKeysWatch | None, metrics: Metrics, cors_origins: Sequence[str]
) -> list[Middleware]:
    """The middlewares in front of all others; none where there are no `keys` and no origins.

    A browser asks whether a page may send a request before it sends one, without a key, so CORS
    comes first. It lets no page send what the browser knows by itself (cookies, certificates).
    """
    found = []
    if cors_origins:
        found.append(
            Middleware(
                PagesOfOthers,
                allow_origins=list(cors_origins),
                allow_methods=METHODS,
                allow_headers=REQUEST_HEADERS,
                expose_headers=ANSWER_HEADERS,
                max_age=600,
            )
        )
    if keys is not None:
        found.append(Middleware(Authentication, keys=keys, metrics=metrics))
    return found
