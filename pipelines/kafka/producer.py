"""Sends ticks to a topic: keyed by entity, in order, and counted as the broker takes them.

The partitioner is the one of Java's clients, so that an entity lives in one partition whichever
client sends its ticks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from threading import Event
from typing import Any

from confluent_kafka import KafkaException, Producer

from pipelines.errors import BrokerUnavailable

DELIVERY_SECONDS = 30.0
"""Seconds for a broker to confirm a tick: it may be restarting. After them sending has failed."""

PROGRESS_TICKS = 1000
"""Ticks between two reports of progress."""

NEVER = Event()
"""For a caller that need not stop early."""


@dataclass(frozen=True, slots=True)
class Tick:
    """A message to send."""

    key: bytes
    value: bytes


@dataclass(slots=True)
class Sent:
    """The progress of sending, in ticks. What is neither delivered nor failed is under way."""

    sent: int = 0
    delivered: int = 0
    failed: int = 0
    error: str = ""


class TickProducer:
    """Sends ticks, in order for each key, and counts what the broker has taken.

    After a tick that was not taken no other is sent: its entity would have a gap.
    """

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._bootstrap = bootstrap
        self._topic = topic
        self.sent = Sent()
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "partitioner": "murmur2_random",
                "enable.idempotence": True,
                "compression.type": "lz4",
                "linger.ms": 5,
                "message.timeout.ms": int(DELIVERY_SECONDS * 1000),
                "log_level": 0,
            }
        )

    def send(self, tick: Tick) -> None:
        """Send one tick; waits while too many are under way. Raises `BrokerUnavailable`."""
        while True:
            if self.sent.failed:
                raise self._not_taken()
            try:
                self._producer.produce(
                    self._topic, key=tick.key, value=tick.value, on_delivery=self._delivered
                )
            except BufferError:
                self._producer.poll(0.1)
                continue
            except KafkaException as error:
                raise BrokerUnavailable(self._bootstrap, error.args[0].str()) from None
            break
        self.sent.sent += 1
        self._producer.poll(0)

    def send_all(
        self,
        ticks: Iterator[Tick],
        rate: float | None,
        progress: Callable[[Sent], None],
        stop: Event = NEVER,
    ) -> Sent:
        """Send ticks, at most `rate` a second, until they end or `stop` is set.

        However it ends, what was sent is delivered first: `sent.delivered` is what the topic has.
        Raises what `ticks` raises, and `BrokerUnavailable` if any tick was not taken.
        """
        try:
            self._send_each(ticks, rate, progress, stop)
        finally:
            self.flush()
            progress(self.sent)
        return self.sent

    def flush(self) -> None:
        """Wait until all are delivered. Raises `BrokerUnavailable` if any was not."""
        self._producer.flush(DELIVERY_SECONDS + 1)
        if self.sent.delivered < self.sent.sent:
            raise self._not_taken()

    def _send_each(
        self,
        ticks: Iterator[Tick],
        rate: float | None,
        progress: Callable[[Sent], None],
        stop: Event,
    ) -> None:
        began = time.monotonic()
        for number in count():
            ahead = number / rate - (time.monotonic() - began) if rate is not None else 0
            if ahead > 0:
                self._producer.poll(0)
                stop.wait(ahead)
            # Read only now: the tick may get the current time.
            tick = None if stop.is_set() else next(ticks, None)
            if tick is None:
                return
            self.send(tick)
            if number % PROGRESS_TICKS == 0 or (rate is not None and rate < PROGRESS_TICKS):
                progress(self.sent)

    def _not_taken(self) -> BrokerUnavailable:
        missing = self.sent.sent - self.sent.delivered
        why = self.sent.error or f"no answer in {DELIVERY_SECONDS:g} s"
        return BrokerUnavailable(
            self._bootstrap, f"{missing} of {self.sent.sent} ticks were not taken: {why}"
        )

    def _delivered(self, error: Any, _: Any) -> None:
        if error is None:
            self.sent.delivered += 1
        else:
            self.sent.failed += 1
            self.sent.error = error.str()
