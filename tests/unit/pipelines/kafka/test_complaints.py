"""What is made of librdkafka's reports of its connections."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError

from pipelines.errors import BrokerRefused, BrokerUnavailable
from pipelines.kafka.complaints import Complaints
from pipelines.kafka.connection import KafkaConnection

DOWN = KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down")
GONE = KafkaError(KafkaError._TRANSPORT, "Connect to b:1 failed: Connection refused")
PASSWORD = KafkaError(KafkaError._AUTHENTICATION, "SASL authentication error: no")
MECHANISM = KafkaError(
    KafkaError._AUTHENTICATION,
    "handshake failed: Broker: Unsupported SASL mechanism: broker's supported mechanisms: "
    "PLAIN,SCRAM-SHA-256 (after 3ms in state AUTH_HANDSHAKE)",
)


@pytest.mark.parametrize(
    ("reported", "refused", "said"),
    [
        ([], False, "no answer in 10 s"),
        ([GONE, DOWN], False, "Connection refused"),
        ([DOWN], True, "closes each connection"),
        ([DOWN, GONE, DOWN], False, "Connection refused"),
        ([GONE, PASSWORD, DOWN, GONE], True, "refuses the user 'u' with this password"),
        ([MECHANISM, DOWN], True, "one of its mechanisms, PLAIN, SCRAM-SHA-256"),
    ],
)
def test_the_reason_of_no_answer(reported: list[KafkaError], refused: bool, said: str) -> None:
    complaints = Complaints(KafkaConnection("b:1", "SASL_PLAINTEXT", username="u", password="p"))
    for error in reported:
        complaints.add(error)
    error = complaints.error("no answer in 10 s")
    assert isinstance(error, BrokerUnavailable)
    assert isinstance(error, BrokerRefused) == refused
    assert said in str(error)
    assert complaints.refused == refused
    assert bool(complaints.hopeless_for()) == (refused and DOWN in reported)
