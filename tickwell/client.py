"""Reads over HTTP for the command line and the live view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from tickwell.errors import TickwellError

TIMEOUT_SECONDS = 5.0


class Client:
    """A connection to one server."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._http = httpx.Client(base_url=url, timeout=TIMEOUT_SECONDS)

    def batch(self, features: Sequence[str], entities: Sequence[Mapping[str, str]]) -> list[Any]:
        """The answers of `POST /features/batch`. Raises `TickwellError`."""
        body = {"features": list(features), "entities": [dict(entity) for entity in entities]}
        results: list[Any] = self._call("POST", "/features/batch", body)["results"]
        return results

    def health(self) -> dict[str, Any]:
        """The answer of `GET /health`, also when the server is not well. Raises `TickwellError`."""
        return self._call("GET", "/health")

    def close(self) -> None:
        self._http.close()

    def _call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        try:
            response = self._http.request(method, path, json=body)
            answer: dict[str, Any] = response.json()
        except (httpx.HTTPError, ValueError) as error:
            raise TickwellError(
                f"no answer from {self._url} ({error}): is the server running? "
                "`tickwell up` starts one, TICKWELL_URL or --url names another"
            ) from None
        if response.is_error and path != "/health":
            raise TickwellError(str(answer.get("detail", answer)))
        return answer
