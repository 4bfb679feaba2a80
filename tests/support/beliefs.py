"""What hot answers, many reads of it, beside what warm had more than the bound before."""

from __future__ import annotations

import bisect
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import Any

import redis
from redis.exceptions import RedisError

from registry.formats.hot import MARK_MS
from registry.formats.origin import Origin
from registry.formats.row import unpack
from tests.support.hot import Reader
from tests.support.stored import stored_rows

BOUND_SECONDS = MARK_MS / 1000 + 0.005
"""A mark lives for so long; clocks of Redis have steps of a millisecond."""


@dataclass
class Counts:
    """Reads of one entity each: what was believed, what was not, and what was too old."""

    believed: int = 0
    missed: int = 0
    promoted: int = 0
    stale: list[str] = field(default_factory=list)


class Witness:
    """Reads warm all the while: by `least` everybody had read an entity's tick at a moment."""

    def __init__(self, url: str, source: str, entities: Sequence[str]) -> None:
        self._url = url
        self._source = source
        self._entities = list(entities)
        self._moments: list[float] = []
        self._had: list[dict[str, Origin]] = []

    def watch(self, stop: Event) -> None:
        with redis.Redis.from_url(self._url) as client:
            while not stop.is_set():
                try:
                    rows = stored_rows(client, self._source, self._entities)
                except RedisError:
                    continue
                had = zip(self._entities, rows, strict=True)
                # the moments come last: who finds one finds what was seen
                self._had.append({name: unpack(row).origin for name, row in had if row})
                self._moments.append(time.monotonic())
                stop.wait(0.002)

    def least(self, entity: str, moment: float) -> Origin | None:
        """What warm had of an entity when it was last looked at before a moment."""
        place = bisect.bisect_right(self._moments, moment)
        return self._had[place - 1].get(entity) if place else None


@contextmanager
def believing(
    warm: str, hot: str, source: str, entities: Sequence[str], readers: int = 2
) -> Iterator[Counts]:
    """Servers that read entities from hot, and bring in what they miss, until the end."""
    counts, stop = Counts(), Event()
    witness = Witness(warm, source, entities)

    def read() -> None:
        with redis.Redis.from_url(warm) as of_warm, redis.Redis.from_url(hot) as of_hot:
            while not stop.is_set():
                try:
                    _read_once(of_warm, of_hot, source, entities, witness, counts)
                except RedisError:
                    stop.wait(0.01)

    threads = [Thread(target=read) for _ in range(readers)]
    threads.append(Thread(target=witness.watch, args=(stop,)))
    for thread in threads:
        thread.start()
    try:
        yield counts
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _read_once(
    warm: Any,
    hot: Any,
    source: str,
    entities: Sequence[str],
    witness: Witness,
    counts: Counts,
) -> None:
    began = time.monotonic()
    found = Reader(hot, warm, bytes(16)).all_believed(source, entities)
    missed = []
    for entity, row in zip(entities, found, strict=True):
        if row is None:
            missed.append(entity)
            continue
        counts.believed += 1
        origin, least = unpack(row).origin, witness.least(entity, began - BOUND_SECONDS)
        if least is not None and origin < least:
            counts.stale.append(f"{entity}: {origin.offset} where warm had {least.offset}")
    counts.missed += len(missed)
    if missed:
        for row, entity in zip(stored_rows(warm, source, missed), missed, strict=True):
            if row is not None:
                home = unpack(row).origin
                reader = Reader(hot, warm, home.topic_id, home.partition)
                counts.promoted += reader.promote(source, entity)
