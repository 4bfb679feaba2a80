"""How long rows of a cluster are waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from serving.stores.cluster_rows import WAIT_SECONDS, ClusterRows
from serving.stores.redis_reads import Command
from serving.stores.row_store import UNAVAILABLE, RowId
from tests.support.apps import in_a_loop


class Silent:
    """A `RedisReads` of one server that fails every read once its time is over."""

    def server_of(self, key: str) -> str:
        return "one"

    async def each(self, commands: Sequence[Command]) -> list[Any]:
        await asyncio.sleep(WAIT_SECONDS)
        return [TimeoutError("no answer")] * len(commands)

    async def close(self) -> None:
        pass


@in_a_loop
async def test_a_read_behind_another_one_is_not_waited_for_any_longer() -> None:
    rows = ClusterRows(Silent(), lambda rows: None)
    first = asyncio.create_task(rows.read([RowId("price", ("A",))]))
    await asyncio.sleep(WAIT_SECONDS / 2)
    began = asyncio.get_running_loop().time()
    assert await rows.read([RowId("price", ("B",))]) == [UNAVAILABLE]
    assert asyncio.get_running_loop().time() - began < WAIT_SECONDS * 1.4
    assert await first == [UNAVAILABLE]
    assert await rows.read([]) == []
    await asyncio.sleep(WAIT_SECONDS)  # until the last read is over
