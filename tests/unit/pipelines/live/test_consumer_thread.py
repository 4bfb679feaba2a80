"""What a worker adds to aiokafka's member of a consumer group, without a broker."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import errors
from aiokafka.consumer.group_coordinator import CoordinatorGroupRebalance
from aiokafka.consumer.subscription_state import Subscription
from aiokafka.protocol.group import JoinGroupRequest, SyncGroupRequest

from pipelines.kafka.topic_identity import Incarnations
from pipelines.kafka.topics import Topic
from pipelines.live import consumer_thread as member
from pipelines.live.consumer_thread import ConsumerThread, assignors

TOPIC = Topic("ticks.price", bytes(16), 4)


def thread(**consumer: Any) -> Any:
    """A consumer thread that never ran, with the parts of a consumer that are asked here."""
    made: Any = object.__new__(ConsumerThread)
    failures: list[BaseException] = []
    made.app = SimpleNamespace(
        incarnations=Incarnations("nobody:1", {TOPIC.name: TOPIC}),
        fail=failures.append,
        stopping=False,
    )
    made.failures = failures
    made._shared_among = None
    made._ensure_consumer = lambda: SimpleNamespace(**consumer)
    return made


class Broker:
    """In place of a coordinator: lets everybody join, and notes what it was asked."""

    member_id, generation, _group_instance_id = "", -1, "one"
    _rebalance_timeout_ms = 6000

    def __init__(self) -> None:
        self._assignors = assignors({TOPIC.name: TOPIC.topic_id})
        self.asked: list[Any] = []

    async def _send_req(self, request: Any) -> Any:
        self.asked.append(request)
        joined = {"member_id": "m", "generation_id": 1, "group_protocol": "p", "leader_id": "other"}
        return SimpleNamespace(error_code=0, member_assignment=b"share", **joined)


def test_it_asks_to_join_once_with_all_assignors() -> None:
    """Each time that it asks, the whole group rebalances."""
    broker = Broker()
    thread()._join_once(broker)

    async def join() -> Any:
        subscription = Subscription({TOPIC.name})
        rebalance = CoordinatorGroupRebalance(
            broker, "group", 0, subscription, broker._assignors, 6000, 100
        )
        return await rebalance.perform_group_join()

    assert asyncio.run(join()) == ("p", b"share")
    join_request, sync = broker.asked
    assert isinstance(join_request, JoinGroupRequest)
    assert [name for name, _ in join_request._group_protocols] == [
        assignor.name for assignor in broker._assignors
    ]
    assert isinstance(sync, SyncGroupRequest)


@pytest.mark.parametrize("failing", ["the group", "the fetcher"])
def test_what_fails_in_the_background_ends_the_worker(
    failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while no partition is assigned, and nothing is fetched."""
    monkeypatch.setattr(member, "BACKGROUND_SECONDS", 0.01)

    async def watch() -> list[BaseException]:
        error = errors.GroupAuthorizationFailedError("group")
        fetching: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if failing == "the fetcher":
            fetching.set_exception(error)

        def check_errors() -> None:
            if failing == "the group":
                raise error

        watched = thread(
            _coordinator=SimpleNamespace(check_errors=check_errors),
            _fetcher=SimpleNamespace(error_future=fetching),
        )
        await asyncio.wait_for(watched._watch(), 10)
        failures: list[BaseException] = watched.failures
        return failures

    (error,) = asyncio.run(watch())
    assert isinstance(error, errors.GroupAuthorizationFailedError)


@pytest.mark.parametrize(
    ("members", "share", "is_alone"),
    [(1, 4, True), (2, 2, False), (None, 2, False), (None, 4, True)],
    ids=["leader of one", "leader of two", "follower", "came back to all"],
)
def test_who_is_alone_in_its_group(members: int | None, share: int, is_alone: bool) -> None:
    joined = thread()
    if members is not None:
        joined._shares_out(members)
    joined.joined(share)
    assert joined._is_alone is is_alone
