"""Requests to the brokers by an administrative client, and why one gets no answer.

A client that is made anew knows only the addresses that are configured, and while the broker at one
of them is dead or frozen it may take seconds until it has tried another one. So the client that got
an answer is kept, which has connections and knows all brokers from their metadata. Where it gets
none, another one takes its place, which is also given the addresses of the brokers that have been
met. An error that is told is always one of a client that was made for this request: what librdkafka
reports of connections it does not repeat, and of a kept client nobody could tell how old that is.
"""

from __future__ import annotations

import atexit
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, wait
from threading import Lock
from time import monotonic
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException, Node
from confluent_kafka.admin import AdminClient

from pipelines.errors import BrokerUnavailable
from pipelines.kafka.complaints import Complaints
from pipelines.kafka.connection import KafkaConnection

TIMEOUT = 10.0
"""Seconds for the brokers to answer; healthy ones take milliseconds, one that starts some more."""

KEPT_SECONDS = 2.5
"""Seconds for the brokers to answer a client that is kept: then another one may be answered by
other brokers, before what is known of the topics is too old (`topic_identity.FRESH_SECONDS`)."""

ATTEMPTS = (2.5, 2.5, TIMEOUT - 5.0)
"""Seconds that each of the clients is given that are made one after the other, where there are
several brokers. librdkafka asks the one that the metadata name as the controller. With KRaft that
is any of them, until its session has ended also one that is dead, and another one at the next."""

REFUSED_SECONDS = 0.5
"""Seconds that a request waits after a broker has refused this client and all are down: one of them
may be up by now, of which librdkafka reports nothing."""

POLL_SECONDS = 0.05
"""Seconds between two looks at what the client reports of its connections."""

KEPT_CLIENTS = 4
"""Connections of which a process keeps clients; each client has a thread for each broker."""

NO_ANSWER = (KafkaError._TIMED_OUT, KafkaError._TRANSPORT, KafkaError._RESOLVE)

K = TypeVar("K")
Connect = Callable[[dict[str, Any]], AdminClient]
Request = Callable[[AdminClient, float], Mapping[K, Future[Any]]]
"""Sends a request by a client, with seconds for the answers; returns these by what they are of."""


def make_admin(settings: dict[str, Any]) -> AdminClient:
    """The client itself."""
    return AdminClient(settings)


def ask(
    kafka: KafkaConnection,
    request: Request[K],
    connect: Connect = make_admin,
    refused_seconds: float = REFUSED_SECONDS,
) -> dict[K, Any]:
    """What the brokers answer, or the `KafkaException` that they answer with. For any thread.

    A request may be sent twice. Raises `BrokerUnavailable` where there is no answer, and for
    settings that the client does not take.
    """
    brokers = _met(kafka, connect)
    kept = brokers.client
    if kept is not None:
        try:
            return kept.ask(request, KEPT_SECONDS)
        except BrokerUnavailable:
            brokers.forget(kept)
    unanswered: BrokerUnavailable | None = None
    for seconds in ATTEMPTS if "," in brokers.servers else (TIMEOUT,):
        made = _Client(kafka, brokers.servers, connect, refused_seconds)
        try:
            found = made.ask(request, seconds)
        except BrokerUnavailable as error:
            unanswered = error
            if made.is_refused:
                break
        else:
            brokers.client = made
            return found
    assert unanswered is not None
    raise unanswered


def meet(kafka: KafkaConnection, nodes: Iterable[Node | None], connect: Connect) -> None:
    """Remember brokers that an answer named; one that is gone has no address there."""
    _met(kafka, connect).meet(f"{node.host}:{node.port}" for node in nodes if node and node.host)


class _Client:
    """A client that knows why it gets no answer."""

    def __init__(
        self, kafka: KafkaConnection, servers: str, connect: Connect, refused_seconds: float
    ) -> None:
        self._refused_seconds = refused_seconds
        self._complaints = Complaints(kafka)
        settings = {
            **kafka.librdkafka(self._complaints.add),
            "bootstrap.servers": servers,
            "socket.connection.setup.timeout.ms": 5000,
        }
        try:
            self._client = connect(settings)
        except KafkaException as error:
            raise BrokerUnavailable(kafka.servers, error.args[0].str()) from None

    @property
    def is_refused(self) -> bool:
        """Whether a broker refuses this client, and no other one is up for a while."""
        return self._complaints.hopeless_for() > self._refused_seconds

    def ask(self, request: Request[K], timeout: float) -> dict[K, Any]:
        """As the function; a client that all brokers refuse is told so before the time is over."""
        # The client's own timeout comes first, except where a broker accepts and never answers.
        deadline = monotonic() + timeout + 1
        asked = request(self._client, timeout)
        return {of: self._answer(future, deadline) for of, future in asked.items()}

    def _answer(self, future: Future[Any], deadline: float) -> Any:
        while not wait([future], POLL_SECONDS).done and monotonic() < deadline:
            self._client.poll(0)  # calls `Complaints.add`
            if self.is_refused:
                raise self._complaints.error("")
        try:
            return future.result(0)
        except KafkaException as error:
            if error.args[0].code() not in NO_ANSWER:
                return error
        except TimeoutError:
            pass
        self._client.poll(0)
        raise self._complaints.error(f"no answer in {TIMEOUT:g} s")


class _Met:
    """The brokers of a cluster as far as they are known, and the client that they have answered."""

    def __init__(self, kafka: KafkaConnection) -> None:
        self._addresses = dict.fromkeys(kafka.servers.split(","))
        self.client: _Client | None = None

    @property
    def servers(self) -> str:
        """The addresses that are configured, and those that were met last."""
        return ",".join(self._addresses)

    def meet(self, addresses: Iterable[str]) -> None:
        self._addresses = {**self._addresses, **dict.fromkeys(addresses)}

    def forget(self, client: _Client) -> None:
        """Ask no more by this client; another thread may have replaced it."""
        if self.client is client:
            self.client = None


_clusters: OrderedDict[tuple[int, KafkaConnection, Connect], _Met] = OrderedDict()
"""By the process too: a client has threads, which a fork does not have."""

_lock = Lock()


def _met(kafka: KafkaConnection, connect: Connect) -> _Met:
    key = os.getpid(), kafka, connect
    with _lock:
        found = _clusters[key] = _clusters.get(key) or _Met(kafka)
        _clusters.move_to_end(key)
        left = _clusters.popitem(last=False)[1] if len(_clusters) > KEPT_CLIENTS else None
    del left  # its client ends outside of the lock, as that takes a moment
    return found


atexit.register(_clusters.clear)  # while Python is whole: a client's end calls into it
