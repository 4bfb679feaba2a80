"""Sends ticks to a topic: keyed by entity, in order, and counted as the broker takes them.

The partitioner is the one that the source names, so that an entity lives in one partition whichever
client sends its ticks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from threading import Event
from typing import Any

import msgspec
from confluent_kafka import KafkaError, KafkaException, Producer

from pipelines.errors import BrokerUnavailable, RightMissing
from pipelines.kafka.complaints import Complaints
from pipelines.kafka.connection import KafkaConnection
from pipelines.kafka.rights import REFUSALS, topic
from registry.definitions import Partitioner

DELIVERY_SECONDS = 30.0
"""Seconds for a broker to confirm a tick: it may be restarting. After them sending has failed."""

PARTITIONERS: dict[Partitioner, str] = {
    "murmur2": "murmur2_random",
    "crc32": "consistent_random",
    "fnv1a": "fnv1a_random",
    "any": "murmur2_random",
}
"""librdkafka's names of the partitioners that a source can name: those of Java's clients, of itself
and of sarama, and for a source that takes any the first."""

MOST_UNDER_WAY = 30_000
"""Messages that are handed over and not answered yet, at most."""

MOST_KILOBYTES_UNDER_WAY = 16_384
"""Of the values of such messages."""

NEVER = Event()
"""For a caller that need not stop early."""


@dataclass(frozen=True, slots=True)
class Tick:
    """A message to send."""

    key: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class Sent:
    """The progress of sending, in ticks: handed over, and of these those that failed for good.

    Once nothing is under way the others are delivered.
    """

    sent: int = 0
    failed: int = 0
    error: str = ""

    @property
    def delivered(self) -> int:
        """The ticks that the topic has, once nothing is under way."""
        return self.sent - self.failed


class DeliveredOffsets:
    """Where in the log delivered ticks are: by partition, ranges of offsets."""

    def __init__(self) -> None:
        self._ranges: dict[int, list[list[int]]] = {}

    def add(self, partition: int, offset: int) -> None:
        """Note a tick. The ticks of a partition are delivered in the order of their offsets."""
        ranges = self._ranges.setdefault(partition, [])
        if ranges and ranges[-1][1] == offset:
            ranges[-1][1] = offset + 1
        else:
            ranges.append([offset, offset + 1])

    @property
    def ranges(self) -> list[tuple[int, int, int]]:
        """(partition, first offset, the offset behind the last one), without gaps inside."""
        return [
            (partition, start, end)
            for partition, ranges in sorted(self._ranges.items())
            for start, end in ranges
        ]

    @property
    def ends(self) -> dict[int, int]:
        """The offset behind the last tick, by partition."""
        return {partition: ranges[-1][1] for partition, ranges in self._ranges.items()}


def producer_settings(partitioner: Partitioner) -> dict[str, Any]:
    """The settings of a client that sends each tick once, in order, to the right partition."""
    return {
        "partitioner": PARTITIONERS[partitioner],
        "enable.idempotence": True,
        "compression.type": "lz4",
        "linger.ms": 5,
        "queue.buffering.max.messages": MOST_UNDER_WAY,
        "queue.buffering.max.kbytes": MOST_KILOBYTES_UNDER_WAY,
        "message.timeout.ms": int(DELIVERY_SECONDS * 1000),
    }


class TickProducer:
    """Sends ticks, in order for each key, and counts what the broker has taken.

    After a tick that was not taken no other is sent: its entity would have a gap. `partitioner` is
    that of the source. With `locate` it notes where each tick is in the log (`offsets`), which
    costs a call for each.
    """

    def __init__(
        self,
        kafka: KafkaConnection,
        topic: str,
        locate: bool = False,
        partitioner: Partitioner = "murmur2",
    ) -> None:
        self._kafka = kafka
        self._complaints = Complaints(kafka)
        self._topic = topic
        self._handed = self._failed = 0
        self._error: KafkaError | None = None
        self.offsets = DeliveredOffsets()
        settings = {
            **kafka.librdkafka(self._complaints.add),
            **producer_settings(partitioner),
            "on_delivery": self._answered,
        }
        if not locate:
            settings["delivery.report.only.error"] = True
        self._producer = Producer(settings)

    @property
    def sent(self) -> Sent:
        """The progress so far."""
        return Sent(self._handed, self._failed, self._error.str() if self._error else "")

    def send(self, tick: Tick) -> None:
        """Send one tick; waits while too many are under way. Raises `BrokerUnavailable`."""
        self.send_many((tick.key,), (tick.value,), 1)

    def send_many(self, keys: Sequence[bytes], values: Sequence[bytes], ticks: int) -> None:
        """Send messages of so many ticks together; waits while too many are under way.

        Raises `BrokerUnavailable`.
        """
        produce, topic = self._producer.produce, self._topic
        self._check()
        handed = 0
        try:
            for key, value in zip(keys, values, strict=True):
                while True:
                    try:
                        produce(topic, value, key)
                        break
                    except BufferError:
                        self._producer.poll(0.1)
                        self._check()
                handed += 1
        except KafkaException as error:
            raise BrokerUnavailable(self._kafka.servers, error.args[0].str()) from None
        finally:
            whole = handed == len(values)
            self._handed += ticks if whole else sum(map(ticks_in, values[:handed]))
        self._producer.poll(0)

    def send_all(
        self,
        batches: Iterable[tuple[Sequence[bytes], Sequence[bytes], int]],
        progress: Callable[[Sent], None],
        stop: Event = NEVER,
    ) -> Sent:
        """Send keys, values and their number of ticks, until they end or `stop` is set.

        However it ends, what was sent is delivered first: `sent.delivered` is what the topic has.
        Raises what `batches` raises, and `BrokerUnavailable` if any tick was not taken.
        """
        try:
            for keys, values, ticks in batches:
                if stop.is_set():
                    break
                self.send_many(keys, values, ticks)
                progress(self.sent)
        finally:
            self.flush()
            progress(self.sent)
        return self.sent

    def flush(self) -> None:
        """Wait until all are delivered. Raises `BrokerUnavailable` if any was not."""
        if self._producer.flush(DELIVERY_SECONDS + 1):
            self._producer.purge()
            self._producer.flush(1)
        self._check()

    def _check(self) -> None:
        if self._failed:
            raise self._not_taken()

    def _not_taken(self) -> BrokerUnavailable:
        sent = self.sent
        why = sent.error or f"no answer in {DELIVERY_SECONDS:g} s"
        if self._complaints.refused:
            return self._complaints.error(why)
        what = f"{sent.failed} of {sent.sent} ticks were not taken: "
        if self._error is not None and self._error.code() in REFUSALS:
            return RightMissing(self._kafka.servers, "Write", topic(self._topic), what)
        return BrokerUnavailable(self._kafka.servers, what + why)

    def _answered(self, error: Any, message: Any) -> None:
        if error is None:
            self.offsets.add(message.partition(), message.offset())
        else:
            self._failed += ticks_in(message.value())
            self._error = error


def ticks_in(value: bytes) -> int:
    """The number of ticks of a message that was made here."""
    return len(msgspec.json.decode(value)) if value.startswith(b"[") else 1
