"""What the breaker of Postgres is told of statements."""

from __future__ import annotations

from typing import Any

import pytest

from serving.stores.cold import ROWS, ColdStore
from serving.stores.postgres_reads import PostgresReads
from serving.stores.row_store import UNAVAILABLE, Group, MemberSet, RowId
from tests.support.apps import in_a_loop

ONE = [RowId("price", ("A",))]
MANY = [RowId("price", (str(number),)) for number in range(ROWS[1] + 1)]


class Slow(PostgresReads):
    """A Postgres that answers statements with one of `answered` in them, and no others in time."""

    def __init__(self, *answered: str) -> None:
        super().__init__("postgresql://nobody@127.0.0.1:1/none")
        self._answered = answered

    async def query(self, statement: str, parameters: Any) -> list[Any]:
        old = " old" if parameters.get("since", 0) < 0 else ""
        if any(one in statement + old for one in self._answered):
            return []
        raise TimeoutError


async def read(store: ColdStore, what: str) -> None:
    if what == "members":
        assert await store.members([MemberSet("position", "P")], 1) == [UNAVAILABLE]
    elif what == "closes":
        assert await store.last_closed([Group("position", ("P",))]) == [UNAVAILABLE]
    else:
        wanted = MANY if what == "many" else ONE
        assert set((await store.rows(wanted)).rows) == {UNAVAILABLE}


@in_a_loop
@pytest.mark.parametrize("what", ["members", "closes", "many"])
async def test_a_large_read_that_takes_too_long_says_nothing_of_others(what: str) -> None:
    store = ColdStore("", reads=Slow("SELECT 1"))
    for _ in range(3):
        await read(store, what)
    assert not store.breaker.is_open
    await store.close()


@in_a_loop
@pytest.mark.parametrize("what", ["members", "closes", "many", "one"])
async def test_postgres_that_answers_no_probe_either_is_not_asked_any_more(what: str) -> None:
    store = ColdStore("", reads=Slow())
    await read(store, what)
    assert store.breaker.is_open
    await store.close()
