"""What tests share that attack the writers of a single Redis."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from pipelines.kafka.run import Run
from pipelines.stores.redis.online_sink import OnlineSink
from tests.support.sinks import Opened

SYMBOLS = ["A", "B", "C", "D", "E"]
PARTS = 3
"""In which a run of all symbols is stored by a sink of `in_parts`."""


def in_parts(opened: Opened, url: str) -> OnlineSink:
    """A sink that stores two entities with each script."""
    sink: OnlineSink = opened(OnlineSink(url, entities_a_call=2))
    return sink


def at(moment: int, act: Callable[[], object]) -> Callable[[int], None]:
    """Acts before the script of this number, counted from 1."""

    def acting(number: int) -> None:
        if number == moment:
            act()

    return acting


def in_partition(run: Run, partition: int) -> Run:
    return replace(run, partition=partition)


def of_entities(dump: Mapping[bytes, bytes], entities: Collection[str]) -> dict[bytes, bytes]:
    """What of a dump of Redis (`sinks.redis_dump`) is stored of some entities."""
    names = {entity.encode() for entity in entities}
    whose = {key: key.partition(b" ")[2].partition(b"\x1f")[0] for key in dump}
    return {key: value for key, value in dump.items() if whose[key] in names}
