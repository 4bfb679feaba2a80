"""The administrative client: requests to the brokers, and why one gets no answer."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, wait
from time import monotonic
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from pipelines.errors import BrokerUnavailable
from pipelines.kafka.complaints import Complaints
from pipelines.kafka.connection import KafkaConnection

TIMEOUT = 10.0
"""Seconds for the broker to answer; a healthy one takes milliseconds, one that starts some more."""

REFUSED_SECONDS = 0.5
"""Seconds that a request waits after a broker has refused this client and all are down: one of them
may be up by now, of which librdkafka reports nothing."""

POLL_SECONDS = 0.05
"""Seconds between two looks at what the client reports of its connections."""

NO_ANSWER = (KafkaError._TIMED_OUT, KafkaError._TRANSPORT, KafkaError._RESOLVE)

Connect = Callable[[dict[str, Any]], AdminClient]


def make_admin(settings: dict[str, Any]) -> AdminClient:
    """The client itself."""
    return AdminClient(settings)


class Admin:
    """A client that knows why it gets no answer; it must live until it has one.

    Raises `BrokerUnavailable` for settings that the client does not take.
    """

    def __init__(
        self,
        kafka: KafkaConnection,
        connect: Connect = make_admin,
        refused_seconds: float = REFUSED_SECONDS,
    ) -> None:
        self._kafka = kafka
        self._refused_seconds = refused_seconds
        self._complaints = Complaints(kafka)
        settings = kafka.librdkafka(self._complaints.add)
        try:
            self.client = connect({**settings, "socket.connection.setup.timeout.ms": 5000})
        except KafkaException as error:
            raise BrokerUnavailable(kafka.servers, error.args[0].str()) from None

    def answer(self, future: Future[Any]) -> Any:
        """What the broker answers. Raises its `KafkaException`, and `BrokerUnavailable`.

        A client that is refused by all is told so at once, and not when the time is over.
        """
        # The client's own timeout comes first, except where a broker accepts and never answers.
        deadline = monotonic() + TIMEOUT + 1
        while not wait([future], POLL_SECONDS).done and monotonic() < deadline:
            self.client.poll(0)  # calls `Complaints.add`
            if self._complaints.hopeless_for() > self._refused_seconds:
                raise self._complaints.error("")
        try:
            return future.result(0)
        except (TimeoutError, KafkaException) as error:
            if isinstance(error, KafkaException) and error.args[0].code() not in NO_ANSWER:
                raise
            self.client.poll(0)
            raise self._complaints.error(f"no answer in {TIMEOUT:g} s") from None
