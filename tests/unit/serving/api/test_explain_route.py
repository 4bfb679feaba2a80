"""How many explanations are in hand at once, and for how long."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.requests import Request
from starlette.types import Scope

from serving.api.admission import Admission
from serving.api.deadlines import Deadlines
from serving.api.explain_route import ExplainRoute
from serving.errors import DeadlineMissed, Overloaded, StoresUnavailable
from tests.support.apps import in_a_loop


class SilentReads:
    """Reads that are not answered until they may be, and then with an error."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()

    async def run(self, work: Any) -> Any:
        await self.may_end.wait()
        raise TimeoutError


class AnyCatalog:
    """A catalog that nobody looks at before Postgres answers."""

    names = None


def request(**headers: str) -> Request:
    scope: Scope = {
        "type": "http",
        "method": "GET",
        "path": "/features/price_sma_5/explain",
        "path_params": {"name": "price_sma_5"},
        "query_string": b"entity_type=symbol&entity_value=AAPL",
        "headers": [
            (name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()
        ],
    }
    return Request(scope)


def made(most: int = 10) -> tuple[ExplainRoute, SilentReads, Admission]:
    reads: Any = SilentReads()
    catalog: Any = AnyCatalog()
    admission = Admission(most)
    return ExplainRoute(catalog, reads, (admission, Deadlines(5_000)), 2), reads, admission


@in_a_loop
async def test_beyond_a_few_the_next_is_refused_and_counted() -> None:
    route, reads, admission = made()
    tasks = [asyncio.create_task(route.explain(request())) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="2 explanations in hand"):
        await route.explain(request())
    assert (admission.answering, admission.refused) == (2, 1)
    reads.may_end.set()
    for task in tasks:
        with pytest.raises(StoresUnavailable):
            await task
    assert admission.answering == 0
    with pytest.raises(StoresUnavailable):
        await route.explain(request())


@in_a_loop
async def test_the_limit_of_all_routes_counts_too() -> None:
    route, _, _ = made(most=0)
    with pytest.raises(Overloaded):
        await route.explain(request())


@in_a_loop
async def test_it_ends_at_its_deadline() -> None:
    route, _, admission = made()
    with pytest.raises(DeadlineMissed, match="Postgres"):
        await route.explain(request(x_deadline_ms="20"))
    assert admission.answering == 0
