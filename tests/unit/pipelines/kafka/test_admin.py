"""How long a request waits where some brokers refuse the client."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Node

from pipelines.errors import BrokerRefused, BrokerUnavailable
from pipelines.kafka.admin import ATTEMPTS, ask, meet
from pipelines.kafka.connection import KafkaConnection

REFUSED = KafkaError(KafkaError._AUTHENTICATION, "SASL authentication error: no")
GONE = KafkaError(KafkaError._TRANSPORT, "Connect to b:1 failed: Connection refused")
DOWN = KafkaError(KafkaError._ALL_BROKERS_DOWN, "2/2 brokers are down")


class Brokers:
    """A client that reports errors at its polls, one at each, and has its answer at the last."""

    def __init__(self, *reports: KafkaError | None) -> None:
        self.reports = list(reports)
        self.answer: Future[str] = Future()
        self.given: list[str] = []

    def connect(self, settings: dict[str, Any]) -> Any:
        self.report = settings["error_cb"]
        self.given.append(settings["bootstrap.servers"])
        return self

    def ask(self, seconds: float) -> dict[str, Future[str]]:
        return {"topic": self.answer}

    def poll(self, timeout: float) -> None:
        if not self.reports:
            if not self.answer.done():
                self.answer.set_result("answered")
            return
        error = self.reports.pop(0)
        if error is not None:
            self.report(error)


CONNECTION = KafkaConnection("b:1,c:1", "SASL_PLAINTEXT", username="u", password="p")


def asked(brokers: Brokers) -> Any:
    return ask(CONNECTION, lambda _, seconds: brokers.ask(seconds), brokers.connect, 0.0)["topic"]


@pytest.mark.parametrize("reports", [(REFUSED, None, None), (None,), (GONE, DOWN, None)])
def test_what_one_broker_refuses_another_one_answers(reports: Sequence[KafkaError | None]) -> None:
    assert asked(Brokers(*reports)) == "answered"


@pytest.mark.parametrize("reports", [(REFUSED, DOWN), (GONE, DOWN, REFUSED), (REFUSED, None, DOWN)])
def test_a_client_that_all_refuse_does_not_wait(reports: Sequence[KafkaError | None]) -> None:
    with pytest.raises(BrokerRefused, match="refuses the user 'u'"):
        asked(Brokers(*reports, None, None))


def unanswered(code: int = KafkaError._TIMED_OUT) -> Future[str]:
    future: Future[str] = Future()
    future.set_exception(KafkaException(KafkaError(code)))
    return future


def test_a_client_is_kept_while_it_is_answered() -> None:
    brokers = Brokers()
    assert [asked(brokers) for _ in range(3)] == ["answered"] * 3
    assert len(brokers.given) == 1
    brokers.answer = unanswered(KafkaError.UNKNOWN_TOPIC_OR_PART)  # that is an answer as well
    assert isinstance(asked(brokers), KafkaException)
    assert len(brokers.given) == 1


def test_one_that_gets_no_answer_is_replaced_by_one_that_knows_whom_it_has_met() -> None:
    class Forgetful(Brokers):
        def ask(self, seconds: float) -> dict[str, Future[str]]:
            answer = Future[str]() if len(self.given) == 2 else unanswered()
            if len(self.given) != 1 or not self.met:
                answer = Future()
                answer.set_result(f"of client {len(self.given)}")
            return {"topic": answer}

        met = False

    brokers = Forgetful()
    assert asked(brokers) == "of client 1"
    brokers.met = True
    meet(CONNECTION, [Node(1, "b", 1), Node(2, "d", 1), None, Node(3, "", -1)], brokers.connect)
    assert asked(brokers) == asked(brokers) == "of client 2"
    assert brokers.given == ["b:1,c:1", "b:1,c:1,d:1"]


def test_an_error_that_is_told_is_one_of_this_request() -> None:
    """What the kept client was told an hour ago is none."""
    brokers = Brokers(GONE, DOWN)
    assert asked(brokers) == "answered"
    brokers.answer = unanswered()
    with pytest.raises(BrokerUnavailable, match="no answer in 10 s"):
        asked(brokers)
    assert len(brokers.given) == 1 + len(ATTEMPTS)


@pytest.mark.parametrize("dead", [0, 1, 2])
def test_the_next_client_may_ask_another_broker(dead: int) -> None:
    """Each asks the one that the metadata name, and that may be dead."""

    class Named(Brokers):
        def ask(self, seconds: float) -> dict[str, Future[str]]:
            return {"topic": unanswered() if len(self.given) <= dead else self.answer}

    brokers = Named()
    assert asked(brokers) == "answered"
    assert len(brokers.given) == dead + 1
