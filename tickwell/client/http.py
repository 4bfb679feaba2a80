"""Reads over HTTP for the command line and the live view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Any

import httpx
import msgspec

from tickwell.errors import SettingError, TickwellError, one_line
from tickwell.masking import shown

TIMEOUT_SECONDS = 5.0
STRANGER = "it does not answer as a Tickwell server does"


class Client:
    """A connection to one server."""

    def __init__(self, url: str) -> None:
        self._url = shown("url", url)
        try:
            beyond = not _is_loopback(httpx.URL(url).host)  # only there a proxy is of use
            self._http = httpx.Client(base_url=url, timeout=TIMEOUT_SECONDS, trust_env=beyond)
        except httpx.InvalidURL as error:
            raise SettingError("TICKWELL_URL", self._url, str(error)) from None
        except (ImportError, ValueError) as error:
            raise TickwellError(
                f"{self._url} cannot be reached through the proxy that ALL_PROXY, HTTP_PROXY or "
                f"HTTPS_PROXY names ({one_line(error)}); NO_PROXY names hosts that need none"
            ) from None

    def batch(self, features: Sequence[str], entities: Sequence[Mapping[str, str]]) -> list[Any]:
        """The answers of `POST /features/batch`. Raises `TickwellError`."""
        body = {"features": list(features), "entities": [dict(entity) for entity in entities]}
        results = self._call("POST", "/features/batch", body).get("results")
        if not isinstance(results, list):
            raise self._no_answer(STRANGER)
        return results

    def health(self) -> dict[str, Any]:
        """The answer of `GET /health`, also when the server is not well. Raises `TickwellError`."""
        answer = self._call("GET", "/health")
        if "status" not in answer:
            raise self._no_answer(STRANGER)
        return answer

    def close(self) -> None:
        self._http.close()

    def _call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        try:
            response = self._http.request(method, path, json=body)
            answer: dict[str, Any] = msgspec.json.decode(response.content, type=dict[str, Any])
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            raise self._no_answer(str(error) or type(error).__name__) from None
        except msgspec.DecodeError:
            raise self._no_answer(STRANGER) from None
        if response.is_error and path != "/health":
            raise TickwellError(str(answer.get("detail", answer)))
        return answer

    def _no_answer(self, why: str) -> TickwellError:
        return TickwellError(
            f"no answer from {self._url} ({why}): is the server running? "
            "`tickwell up` starts one, TICKWELL_URL or --url names another"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
