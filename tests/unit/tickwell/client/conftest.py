"""Clients, and servers that they ask."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.support.askers import Asker
from tests.support.scripted_http import (
    listening,
)
from tickwell import AsyncClient, Client


@pytest.fixture(params=[Client, AsyncClient])
def asker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Asker]:
    for name in ("TICKWELL_URL", "TICKWELL_API_KEY", "TICKWELL_URL_CA"):
        monkeypatch.delenv(name, raising=False)
    with asyncio.Runner() as loop:
        made = Asker(request.param, loop)
        yield made
        made.close()


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    with ExitStack() as stack:
        yield lambda *arguments: stack.enter_context(listening(*arguments))
