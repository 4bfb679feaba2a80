"""The look-up of positions, and what a worker reports while it waits for one."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any, cast

import pytest
from faust.types import TP

from pipelines.errors import StoreUnavailable
from pipelines.live.store_positions import StorePositions
from pipelines.runtime.patience import Patience
from tests.support.apps import TOPIC

FIRST = TP(TOPIC.name, 0)


class Store:
    """A sink that has every partition stored up to offset 5, unless it refuses."""

    refuses = False

    def watermarks(self, topic_id: bytes, partitions: Iterable[int]) -> Mapping[int, int]:
        if self.refuses:
            raise StoreUnavailable("connection refused")
        return dict.fromkeys(partitions, 5)


def positions_in(store: Any, patience: Patience) -> StorePositions:
    return StorePositions({TOPIC.name: TOPIC}, {TOPIC.name: store}, None, patience)


def test_a_look_up_that_fails_is_reported_until_one_succeeds() -> None:
    store, patience = Store(), Patience("the store")
    positions = positions_in(store, patience)
    store.refuses = True
    with pytest.raises(StoreUnavailable):
        positions.of([FIRST])
    assert patience.reason == "connection refused"
    store.refuses = False
    assert positions.of([FIRST]) == {FIRST: 5}
    assert patience.reason is None


class Hot:
    """Keeps what it was told to be assigned last."""

    last: Any = None

    def assigned(self, partitions: Iterable[tuple[str, bytes, int]]) -> None:
        self.last = list(partitions)


def test_a_look_up_that_ends_after_a_later_one_has_begun_assigns_nothing() -> None:
    """It may hang in its thread until the partitions are another worker's."""
    hot: Any = Hot()
    store = Store()
    positions = StorePositions(
        {TOPIC.name: TOPIC}, {TOPIC.name: cast(Any, store)}, None, Patience("the store"), hot
    )
    positions.of([FIRST])
    assert hot.last == [(TOPIC.name, TOPIC.topic_id, 0)]

    def late(topic_id: bytes, partitions: Iterable[int]) -> Mapping[int, int]:
        positions.of(())
        return dict.fromkeys(partitions, 5)

    store.watermarks = late  # type: ignore[method-assign]
    positions.of([FIRST])
    assert hot.last == []


def test_a_worker_that_lost_its_partitions_waits_no_longer_for_the_store(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It does not claim either that the store, which nothing has called, answers again."""
    caplog.set_level(logging.INFO)
    store, patience = Store(), Patience("the store")
    store.refuses = True
    with pytest.raises(StoreUnavailable):
        positions_in(store, patience).of([FIRST])
    assert positions_in(store, patience).of(()) == {}
    assert patience.reason is None
    assert caplog.messages == ["the store is unavailable, waiting: connection refused"]
