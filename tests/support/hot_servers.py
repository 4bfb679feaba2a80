"""Servers that read hot while real workers feed it, and what they served beside what warm had."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, Thread

import redis
from redis.exceptions import RedisError

from registry.formats.hot import row_key
from registry.formats.origin import Origin
from registry.formats.row import unpack
from serving.stores.hot import HotStore
from serving.stores.hot_marks import MARKS_SECONDS
from serving.stores.row_store import RowId, Tier, TieredRows
from serving.stores.warm import WarmStore
from tests.support.beliefs import BOUND_SECONDS, Witness


@dataclass
class Served:
    """Rows by their tier, and what is wrong with some."""

    tiers: Counter[Tier] = field(default_factory=Counter)
    stale: list[str] = field(default_factory=list)
    stepped_back: list[str] = field(default_factory=list)


@contextmanager
def serving(
    warm: str, hot: str, source: str, entities: Sequence[str], servers: int = 2
) -> Iterator[Served]:
    """Servers that read some of the entities all the while; rows are evicted at random."""
    served, stop = Served(), Event()
    witness = Witness(warm, source, entities)

    async def serve() -> None:
        draw, newest = random.Random(5), dict[str, Origin]()
        behind = WarmStore(warm)
        store = HotStore(hot, behind, named=behind.named)
        while not stop.is_set():
            wanted = draw.sample(list(entities), min(4, len(entities)))
            names = [store.name(RowId(source, (entity,))) for entity in wanted]
            began = time.monotonic()
            answer = await store.named_rows([(source, names)])
            if isinstance(answer, list):
                _judge(wanted, answer[0], newest, served, (witness, began))
            await asyncio.sleep(0.0005)
        await store.close()

    def evict() -> None:
        with redis.Redis.from_url(hot) as client:
            while not stop.wait(0.003):
                try:
                    client.delete(row_key(source, random.choice(list(entities))))
                except RedisError:
                    continue

    threads = [Thread(target=asyncio.run, args=(serve(),)) for _ in range(servers)]
    threads += [Thread(target=witness.watch, args=(stop,)), Thread(target=evict)]
    for thread in threads:
        thread.start()
    try:
        yield served
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _judge(
    wanted: Sequence[str],
    found: TieredRows,
    newest: dict[str, Origin],
    served: Served,
    read: tuple[Witness, float],
) -> None:
    witness, began = read
    for index, (entity, row) in enumerate(zip(wanted, found.rows, strict=True)):
        tier = found.tier_of(index)
        served.tiers[tier] += 1
        if not isinstance(row, bytes):
            continue
        origin = unpack(row).origin
        least = witness.least(entity, began - BOUND_SECONDS - MARKS_SECONDS)
        if least is not None and origin < least:
            served.stale.append(f"{entity}: {origin.offset} where warm had {least.offset}")
        if entity in newest and origin < newest[entity]:
            served.stepped_back.append(
                f"{entity}: {origin.offset} from {tier.name} after {newest[entity].offset}"
            )
        newest[entity] = origin
