"""How many searches are in hand at once, and for how long."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from serving.api.admission import Admission
from serving.api.deadlines import Deadlines
from serving.api.search_route import SearchRoute
from serving.errors import DeadlineMissed, InvalidRequest, Overloaded, StoresUnavailable
from tests.support.apps import in_a_loop


class SilentReads:
    """Statements that are not answered until they may be, and then with an error."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()

    async def query(self, *_: Any) -> list[Any]:
        await self.may_end.wait()
        raise TimeoutError

    async def close(self) -> None:
        self.may_end.set()


def request(query: str = "q=price", **headers: str) -> Request:
    scope: Scope = {
        "type": "http",
        "method": "GET",
        "path": "/features/search",
        "query_string": query.encode(),
        "headers": [
            (name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()
        ],
    }
    return Request(scope)


def made(most: int = 10, most_at_once: int = 2) -> tuple[SearchRoute, SilentReads, Admission]:
    reads: Any = SilentReads()
    admission = Admission(most)
    return SearchRoute(reads, (admission, Deadlines(5_000)), most_at_once), reads, admission


async def waiting(route: SearchRoute, count: int) -> list[asyncio.Task[Response]]:
    tasks = [asyncio.create_task(route.search(request())) for _ in range(count)]
    await asyncio.sleep(0)
    return tasks


@in_a_loop
async def test_beyond_a_few_the_next_is_refused_and_counted() -> None:
    route, reads, admission = made()
    tasks = await waiting(route, 2)
    assert admission.answering == 2
    with pytest.raises(Overloaded, match="2 searches in hand"):
        await route.search(request())
    assert admission.refused == 1
    reads.may_end.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(one) for one in found] == [StoresUnavailable] * 2
    assert admission.answering == 0
    with pytest.raises(StoresUnavailable):  # there is room again
        await route.search(request())


@in_a_loop
async def test_a_server_that_is_full_takes_no_search() -> None:
    route, _, admission = made(most=0)
    with pytest.raises(Overloaded):
        await route.search(request())
    assert (admission.answering, admission.refused) == (0, 1)


@in_a_loop
async def test_a_search_ends_at_its_deadline_and_says_who_was_waited_for() -> None:
    route, _, admission = made()
    with pytest.raises(DeadlineMissed, match="Postgres"):
        await route.search(request(x_deadline_ms="20"))
    assert admission.answering == 0


@pytest.mark.parametrize("deadline", ["0", "x", "60001"])
@in_a_loop
async def test_a_deadline_that_is_none_is_refused(deadline: str) -> None:
    route, *_ = made()
    with pytest.raises(InvalidRequest, match="X-Deadline-Ms"):
        await route.search(request(x_deadline_ms=deadline))
