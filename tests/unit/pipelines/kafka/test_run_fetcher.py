"""When the run fetcher fetches, and what it does with the responses, without a broker."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition, errors

from pipelines.kafka.fetched_data import FetchedData, FetchError
from pipelines.kafka.run_fetcher import FetchPacing, RunFetcher

TP = TopicPartition("t", 0)
ID = bytes(range(16))


class Broker:
    """In place of aiokafka's fetcher: responds with `data` of one partition after 5 ms."""

    retry_backoff = 0.0

    def __init__(self, data: bytes, highwater: int, error_code: int = 0) -> None:
        self.response = (TP.partition, error_code, highwater, highwater, [], data)
        self.now, self.slept, self.requests = 100.0, list[float](), 0
        self.events: list[str] = []
        self.buffer: dict[TopicPartition, Any] = {}
        self.state = SimpleNamespace(has_valid_position=True, position=7, highwater=None, lso=None)
        self.assignment = SimpleNamespace(active=True, state_value=lambda tp: self.state)
        internals: Any = self
        pacing = FetchPacing(0.02, lambda: self.now, self.sleep)
        self.fetcher = RunFetcher(internals, {TP.topic: ID}, pacing, self.doubt)

    def doubt(self) -> None:
        self.events.append("doubt")

    def replace_fetch(self, fetch: Any) -> None:
        self.fetch_from_node = fetch

    def reset_position(self, state: Any) -> None:
        self.events.append("position")

    def refresh_metadata(self) -> None:
        self.events.append("metadata")

    async def sleep(self, seconds: float) -> None:
        self.slept.append(max(0.0, seconds))
        self.now += self.slept[-1]

    async def send(self, node_id: int, request: Any) -> Any:
        self.requests += 1
        self.now += 0.005
        return SimpleNamespace(topics=[(TP.topic, [self.response])], API_VERSION=4)

    def fetch(self, node_id: int, offset: int) -> bool:
        """Whether a fetch at an offset, which is the position, brings anything."""
        self.state.position = offset
        request = SimpleNamespace(topics=[(TP.topic, [(TP.partition, offset, 1 << 20)])])
        came: bool = asyncio.run(self.fetch_from_node(self.assignment, node_id, request))
        return came


@pytest.mark.parametrize(
    ("data", "highwater", "waits"),
    [(b"all", 9, [0.0, 0.015]), (b"a part", 10, [0.0]), (b"", 9, [0.0, 0.0])],
)
def test_fetches_from_a_node_begin_some_time_apart(
    data: bytes, highwater: int, waits: list[float]
) -> None:
    """Except where more is known to be available, and after one that brought nothing."""
    broker = Broker(data, highwater)
    for offset in (7, 9):
        assert broker.fetch(0, offset) == bool(data)
    assert broker.slept == pytest.approx(waits)


def test_the_time_between_fetches_is_a_nodes_own() -> None:
    broker = Broker(b"all", 9)
    for node_id, offset in ((0, 7), (1, 9)):
        broker.fetch(node_id, offset)
    assert broker.slept == [0.0, 0.0]


def test_a_fetch_that_is_cancelled_before_it_begins_sends_nothing() -> None:
    """As aiokafka does when partitions are revoked, and when it stops."""

    class Cancelling(Broker):
        async def sleep(self, seconds: float) -> None:
            raise asyncio.CancelledError

    broker = Cancelling(b"all", 9)
    assert not broker.fetch(0, 7)
    assert broker.requests == 0


def test_a_fetch_that_is_cancelled_after_a_refusal_raises_nothing() -> None:
    class Refusing(Broker):
        retry_backoff = 60.0

    broker = Refusing(b"", -1, errors.NotLeaderForPartitionError.errno)
    request = SimpleNamespace(topics=[(TP.topic, [(TP.partition, 7, 1 << 20)])])

    async def stopped() -> bool:
        fetch = asyncio.ensure_future(broker.fetch_from_node(broker.assignment, 0, request))
        await asyncio.sleep(0.01)
        fetch.cancel()
        came: bool = await fetch
        return came

    assert not asyncio.run(stopped())


def test_data_is_kept_from_the_position_that_was_fetched() -> None:
    broker = Broker(b"all", 9)
    assert broker.fetch(0, 7)
    kept = broker.buffer[TP]
    assert isinstance(kept, FetchedData)
    assert (kept.position, bytes(kept.data)) == (7, b"all")
    assert (broker.state.highwater, broker.state.lso) == (9, 9)


@pytest.mark.parametrize(
    ("error", "event"),
    [
        (errors.OffsetOutOfRangeError, "position"),
        (errors.NotLeaderForPartitionError, "metadata"),
        (errors.UnknownTopicOrPartitionError, "metadata"),
    ],
)
def test_an_error_that_passes_is_not_raised(error: Any, event: str) -> None:
    broker = Broker(b"", -1, error.errno)
    assert not broker.fetch(0, 7)
    assert (broker.events, broker.buffer) == (["doubt", event], {})


def test_an_error_that_lasts_is_kept_to_be_raised() -> None:
    broker = Broker(b"", -1, errors.TopicAuthorizationFailedError.errno)
    assert broker.fetch(0, 7)
    kept = broker.buffer[TP]
    assert isinstance(kept, FetchError)
    assert isinstance(kept.error, errors.TopicAuthorizationFailedError)


def test_a_response_for_another_position_is_dropped() -> None:
    """As after a seek while the fetch was on its way."""
    broker = Broker(b"all", 9)
    request = SimpleNamespace(topics=[(TP.topic, [(TP.partition, 5, 1 << 20)])])
    assert not asyncio.run(broker.fetch_from_node(broker.assignment, 0, request))
    assert broker.buffer == {}


def test_what_comes_by_name_after_a_fetch_that_failed_is_doubtful() -> None:
    class Restarts(Broker):
        async def send(self, node_id: int, request: Any) -> Any:
            response = await super().send(node_id, request)
            if self.requests == 2:
                raise errors.KafkaConnectionError
            return response

    broker = Restarts(b"", 9)
    for doubts in (1, 1, 2):
        broker.fetch(0, 7)
        assert broker.events == ["doubt"] * doubts
