"""How long a request waits where some brokers refuse the client."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import pytest
from confluent_kafka import KafkaError

from pipelines.errors import BrokerRefused
from pipelines.kafka.admin import Admin
from pipelines.kafka.connection import KafkaConnection

REFUSED = KafkaError(KafkaError._AUTHENTICATION, "SASL authentication error: no")
GONE = KafkaError(KafkaError._TRANSPORT, "Connect to b:1 failed: Connection refused")
DOWN = KafkaError(KafkaError._ALL_BROKERS_DOWN, "2/2 brokers are down")


class Brokers:
    """A client that reports errors at its polls, one at each, and has its answer at the last."""

    def __init__(self, *reports: KafkaError | None) -> None:
        self.reports = list(reports)
        self.answer: Future[str] = Future()

    def connect(self, settings: dict[str, Any]) -> Any:
        self.report = settings["error_cb"]
        return self

    def poll(self, timeout: float) -> None:
        if not self.reports:
            self.answer.set_result("answered")
            return
        error = self.reports.pop(0)
        if error is not None:
            self.report(error)


def asked(*reports: KafkaError | None) -> Any:
    brokers = Brokers(*reports)
    connection = KafkaConnection("b:1,c:1", "SASL_PLAINTEXT", username="u", password="p")
    return Admin(connection, brokers.connect, refused_seconds=0.0).answer(brokers.answer)


@pytest.mark.parametrize("reports", [(REFUSED, None, None), (None,), (GONE, DOWN, None)])
def test_what_one_broker_refuses_another_one_answers(reports: Sequence[KafkaError | None]) -> None:
    assert asked(*reports) == "answered"


@pytest.mark.parametrize("reports", [(REFUSED, DOWN), (GONE, DOWN, REFUSED), (REFUSED, None, DOWN)])
def test_a_client_that_all_refuse_does_not_wait(reports: Sequence[KafkaError | None]) -> None:
    with pytest.raises(BrokerRefused, match="refuses the user 'u'"):
        asked(*reports, None, None)
