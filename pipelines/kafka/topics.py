"""Topics: created with the settings that the guarantees need, and identified by their ids."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from threading import Event
from typing import Any
from uuid import UUID

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import ConfigResource, NewTopic, TopicDescription  # type: ignore[attr-defined]
from tenacity import (
    Retrying,
    retry_if_exception_type,
    retry_if_result,
    sleep_using_event,
    stop_after_attempt,
    stop_when_event_set,
    wait_fixed,
)

from pipelines.errors import ReplicasRefused, RightMissing, TopicMissing
from pipelines.kafka import rights
from pipelines.kafka.admin import Connect, ask, make_admin, meet
from pipelines.kafka.connection import KafkaConnection

REJECTED = "ticks.rejected"
LOOKS, LOOK_SECONDS = 41, 0.25
"""How often a topic that was just made is looked for, and the seconds between: ten in all. The
brokers of a cluster hear of it 0.1 to 0.3 s after the one that made it, a busy one later."""

NEVER = Event()
"""An event that is never set, for a caller that need not stop early."""

BROKERS_OWN = -1
"""What stands for a broker's `default.replication.factor`, in Kafka's protocol too."""

DEFAULT_MESSAGE_BYTES = 1_000_000
"""Bytes of a batch where a broker reports no limit (Tansu): the default of librdkafka."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic's incarnation: a recreated topic has another `topic_id` (16 bytes)."""

    name: str
    topic_id: bytes
    partitions: int


def check_topics(
    kafka: KafkaConnection,
    names: Sequence[str],
    partitions: int,
    replicas: int = BROKERS_OWN,
    connect: Connect = make_admin,
) -> None:
    """Raises `ReplicasRefused` where one of `names` that does not exist could not be made.

    Raises `BrokerUnavailable`; but nothing of a right that is missing: it may not be needed.
    """
    _, missing = _look(kafka, names, connect)
    if missing:
        with suppress(RightMissing):
            _make(kafka, _new(missing, partitions, replicas), connect, only_check=True)


def ensure_topics(
    kafka: KafkaConnection,
    names: Sequence[str],
    partitions: int,
    stopped: Event = NEVER,
    connect: Connect = make_admin,
    replicas: int = BROKERS_OWN,
) -> dict[str, Topic]:
    """Create those of `names` that do not exist; a topic that exists is left as it is.

    Where all of them exist, no right to create any is needed.
    Records get the broker's append time: it is what `known_at` and `from-the-future` trust.
    Returns once the broker knows of all of them, which may be a moment after they were made; those
    that it still forgets are made again. Raises `BrokerUnavailable`, and `TopicMissing` when that
    takes longer than ten seconds.
    """

    def made() -> dict[str, Topic]:
        found, missing = _look(kafka, names, connect)
        if not missing:
            return found
        _make(kafka, _new(missing, partitions, replicas), connect)
        return describe(kafka, names, connect)

    found: dict[str, Topic] = _until_known(stopped)(made)
    return found


def find_topics(
    kafka: KafkaConnection,
    names: Sequence[str],
    stopped: Event = NEVER,
    connect: Connect = make_admin,
) -> dict[str, Topic]:
    """What the broker says of topics that may just have been made: it is given ten seconds.

    Raises `TopicMissing`, after them or once `stopped` is set, and `BrokerUnavailable`.
    """
    found: dict[str, Topic] = _until_known(stopped)(lambda: describe(kafka, names, connect))
    return found


def _until_known(stopped: Event) -> Retrying:
    return Retrying(
        retry=retry_if_exception_type(TopicMissing),
        stop=stop_after_attempt(LOOKS) | stop_when_event_set(stopped),
        wait=wait_fixed(LOOK_SECONDS),
        sleep=sleep_using_event(stopped),
        reraise=True,
    )


def _new(names: Sequence[str], partitions: int, replicas: int) -> list[NewTopic]:
    return [
        NewTopic(
            name,
            num_partitions=partitions,
            replication_factor=replicas,
            config={"message.timestamp.type": "LogAppendTime", "retention.ms": "-1"},
        )
        for name in names
    ]


def _make(
    kafka: KafkaConnection, new: list[NewTopic], connect: Connect, only_check: bool = False
) -> None:
    answers = ask(
        kafka,
        lambda admin, seconds: admin.create_topics(
            new, request_timeout=seconds, validate_only=only_check
        ),
        connect,
    )
    for name, answer in answers.items():
        error = answer.args[0] if isinstance(answer, KafkaException) else None
        if error is None or error.code() == KafkaError.TOPIC_ALREADY_EXISTS:
            continue
        if error.code() == KafkaError.INVALID_REPLICATION_FACTOR:
            raise ReplicasRefused(kafka.servers, name, error.str())
        raise rights.refusal(kafka.servers, error, "Create", rights.topic(name))


def describe(
    kafka: KafkaConnection, names: Sequence[str], connect: Connect = make_admin
) -> dict[str, Topic]:
    """What the broker says of topics now. Raises `TopicMissing` and `BrokerUnavailable`."""
    found, missing = _look(kafka, names, connect)
    for name in missing:
        raise TopicMissing(name, kafka.servers)
    return found


def existing(
    kafka: KafkaConnection, names: Sequence[str], connect: Connect = make_admin
) -> dict[str, Topic]:
    """What the broker says now of those of `names` that exist. Raises `BrokerUnavailable`."""
    return _look(kafka, names, connect)[0]


def fewest_replicas(
    kafka: KafkaConnection, names: Sequence[str], connect: Connect = make_admin
) -> dict[str, int]:
    """The replicas of the partition that has the fewest, of those of `names` that exist.

    Raises `BrokerUnavailable`.
    """
    found, _ = _described(kafka, names, connect)
    return {
        name: min(len(one.replicas) for one in described.partitions)
        for name, described in found.items()
    }


def _look(
    kafka: KafkaConnection, names: Sequence[str], connect: Connect
) -> tuple[dict[str, Topic], list[str]]:
    """The topics that exist, and the names of the others. Raises `BrokerUnavailable`."""
    found, missing = _described(kafka, names, connect)
    topics = {
        name: Topic(name, _bytes(described.topic_id), len(described.partitions))
        for name, described in found.items()
    }
    return topics, missing


def _described(
    kafka: KafkaConnection, names: Sequence[str], connect: Connect
) -> tuple[dict[str, TopicDescription], list[str]]:
    """What the broker says of the topics that exist, and the names of the others."""
    wanted = TopicCollection(list(names))
    answers = ask(
        kafka,
        lambda admin, seconds: admin.describe_topics(wanted, request_timeout=seconds),
        connect,
    )
    found, missing = {}, []
    for name, answer in answers.items():
        if isinstance(answer, KafkaException):
            if not _is_missing(answer):
                raise rights.refusal(kafka.servers, answer.args[0], "Describe", rights.topic(name))
            missing.append(name)
            continue
        meet(kafka, chain.from_iterable(one.replicas for one in answer.partitions), connect)
        found[name] = answer
    return found, missing


def max_message_bytes(kafka: KafkaConnection, name: str) -> int:
    """The size limit of a batch of records of a topic. Raises `BrokerUnavailable`."""
    (settings,) = topic_configs(kafka, [name]).values()
    if isinstance(settings, KafkaException):
        raise rights.refusal(kafka.servers, settings.args[0], "DescribeConfigs", rights.topic(name))
    limit = settings.get("max.message.bytes")
    return DEFAULT_MESSAGE_BYTES if limit is None else int(limit.value)


def topic_configs(kafka: KafkaConnection, names: Sequence[str]) -> dict[str, Any]:
    """The settings of each topic by their names, or the `KafkaException` that is answered.

    A broker that has not heard of a topic yet is asked again, as by `find_topics`. Raises
    `BrokerUnavailable`.
    """
    until_known = _until_known(NEVER).copy(
        retry=retry_if_result(lambda found: any(map(_is_missing, found.values()))),
        retry_error_callback=lambda state: state.outcome and state.outcome.result(),
        reraise=False,
    )
    found: dict[str, Any] = until_known(lambda: _configs(kafka, names))
    return found


def _configs(kafka: KafkaConnection, names: Sequence[str]) -> dict[str, Any]:
    resources = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in names]
    answers = ask(
        kafka,
        lambda admin, seconds: admin.describe_configs(resources, request_timeout=seconds),
    )
    return {resource.name: answer for resource, answer in answers.items()}


def _is_missing(answer: Any) -> bool:
    return (
        isinstance(answer, KafkaException)
        and answer.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART
    )


def _bytes(topic_id: Any) -> bytes:
    most = topic_id.get_most_significant_bits() & 0xFFFFFFFFFFFFFFFF
    least = topic_id.get_least_significant_bits() & 0xFFFFFFFFFFFFFFFF
    return UUID(int=most << 64 | least).bytes
