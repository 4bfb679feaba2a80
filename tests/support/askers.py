"""Clients of either kind, asked in one way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from tickwell import AsyncClient, Client
from tickwell.client.calls import Chances

KEY = "tw_SECRET"
BRIEF = 0.3
"""Seconds of a deadline that is to pass."""

AT_ONCE = Chances(uniform=lambda low, high: 0.0)


class Asker:
    """A client of either kind, called as one without an event loop is."""

    def __init__(self, kind: type[Client | AsyncClient], loop: asyncio.Runner) -> None:
        self.kind, self._loop = kind, loop
        self.opened: list[Client | AsyncClient] = []

    def open(self, url: str, **options: Any) -> Client | AsyncClient:
        client = self.kind(url, **{"chances": AT_ONCE, "deadline_seconds": 30.0, **options})
        self.opened.append(client)
        return client

    def call(self, method: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        found = method(*arguments, **named)
        return self._run(found) if asyncio.iscoroutine(found) else found

    def _run(self, coroutine: Any) -> Any:
        return self._loop.run(coroutine)

    def close(self) -> None:
        for client in self.opened:
            self.call(client.close)


def one(asker: Asker, client: Client | AsyncClient, **options: Any) -> Any:
    return asker.call(client.get_online_features, ["f"], "symbol", "A", **options)
