"""Publishes rejected ticks to `ticks.rejected`, at least once.

The table is an outbox: the offline sink writes a rejected tick in the transaction that advances
the watermark, and the relay publishes what is not marked yet and marks it once the broker has it.
Killed between the two it publishes again; consumers tell copies by the key, the tick's origin. One
relay works at a time, whoever holds the advisory lock; the others stand by.

No tick holds up the others. With its key and headers a rejected message can be larger than the
broker takes, though it once took it without them: then its value is cut, and the header `truncated`
says so. What the broker refuses for good even so is marked with the year 1970, so that it can be
found; the table has the original bytes of all of them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from threading import Event
from typing import Any
from uuid import UUID

from confluent_kafka import KafkaError, KafkaException, Producer

from pipelines.errors import BrokerUnavailable, PipelineError
from pipelines.kafka.topics import REJECTED, max_message_bytes
from pipelines.stores.postgres.connection import Database
from registry.resources import sql

logger = logging.getLogger(__name__)
OUTBOX = sql(__package__, "outbox")
MARK = sql(__package__, "mark_relayed")
LOCK = 7_242_019_004
BATCH = 500
"""Ticks a round, …"""

BATCH_BYTES = 4 * 1024 * 1024
"""… and bytes of values, but for the first one: a value may be a whole message of a megabyte."""

IDLE_SECONDS = 1.0
AFTER_ERROR_SECONDS = 5.0
DELIVERY_SECONDS = 30
"""For the broker to take a message, with all retries; a healthy one takes milliseconds."""

FRAMING = 61 + 5 * 6 + 10
"""Bytes of a batch with one record: its header, and the record's six lengths and time at most."""

HEADER_FRAMING = 5 + 5
DETAIL_BYTES = 1000
"""Of a detail, which quotes what it is about."""

REFUSED = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.INVALID_MSG_SIZE,
        KafkaError.INVALID_RECORD,
        KafkaError.INVALID_TIMESTAMP,
        KafkaError.POLICY_VIOLATION,
    }
)
"""What is wrong with the message itself. Any other error passes, or is mended for all of them."""


@dataclass(frozen=True, slots=True)
class RejectedTick:
    """A row of the outbox; `value` is no more than the beginning of the message's `size` bytes.

    `value` and `size` are None where the message had none; `known_at` is nanoseconds since 1970.
    """

    topic_id: str
    partition: int
    offset: int
    index: int
    topic: str
    reason: str
    detail: str
    known_at: int
    value: bytes | memoryview | None
    size: int | None

    @property
    def key(self) -> bytes:
        """The origin of the tick."""
        return f"{self.topic_id}/{self.partition}/{self.offset}/{self.index}".encode()

    @property
    def headers(self) -> list[tuple[str, str | bytes | None]]:
        detail = self.detail.encode()[:DETAIL_BYTES].decode(errors="ignore")
        said = {
            "reason": self.reason,
            "detail": detail,
            "topic": self.topic,
            "topic_id": str(UUID(self.topic_id)),
            "partition": str(self.partition),
            "offset": str(self.offset),
            "index": str(self.index),
            "known_at": str(self.known_at),
        }
        if self.size is not None:
            truncated = self.value is None or len(self.value) < self.size
            said |= {"value_bytes": str(self.size), "truncated": str(truncated).lower()}
        return list(said.items())

    def fitted(self, limit: int) -> RejectedTick:
        """With as much of the value as a batch of `limit` bytes has room for, None without room."""
        if self.value is None:
            return self
        headers = sum(
            HEADER_FRAMING + len(name) + len(str(text).encode()) for name, text in self.headers
        )
        room = limit - FRAMING - len(self.key) - headers - len("true")
        return replace(self, value=self.value[:room] if room > 0 else None)


class Relay:
    """Runs in a thread of the offline worker; its failures never stall the sink."""

    def __init__(self, url: str, bootstrap: str, topic: str = REJECTED) -> None:
        self._database = Database(url, "tickwell relay")
        self._bootstrap = bootstrap
        self._topic = topic
        self._publisher: _Publisher | None = None

    def run(self, stop: Event) -> None:
        """Relay until `stop` is set."""
        while not stop.is_set():
            try:
                more = self.relay()
            except PipelineError as error:
                logger.warning("rejected ticks wait to be relayed: %s", error)
                stop.wait(AFTER_ERROR_SECONDS)
            except Exception:  # whatever it is, a relay that ends would never tell
                logger.exception("rejected ticks wait to be relayed")
                stop.wait(AFTER_ERROR_SECONDS)
            else:
                if not more:
                    stop.wait(IDLE_SECONDS)
        self._database.close()

    def relay(self) -> bool:
        """Publish and mark one batch; returns whether more may wait, False while another works.

        Raises `StoreUnavailable` and `BrokerUnavailable`; what was not marked is published again.
        """
        with self._database.cursor() as cursor:
            # held by this session until it ends: a relay that dies lets go
            cursor.execute("SELECT pg_try_advisory_lock(%s)", (LOCK,))
            if not cursor.fetchone()[0]:
                return False
            try:
                return self._relay(cursor)
            finally:
                cursor.execute("SELECT pg_advisory_unlock(%s)", (LOCK,))

    def _relay(self, cursor: Any) -> bool:
        if self._publisher is None:
            self._publisher = _Publisher(self._bootstrap, self._topic)
        limit = self._publisher.limit
        cursor.execute(OUTBOX, {"ticks": BATCH, "bytes": BATCH_BYTES, "limit": limit})
        ticks = [RejectedTick(*row) for row in cursor.fetchall()]
        errors = self._publisher.publish([tick.fitted(limit) for tick in ticks])
        refused = [place for place, error in enumerate(errors) if _is_refused(error)]
        if refused:
            bare = [replace(ticks[place], value=None) for place in refused]
            for place, error in zip(refused, self._publisher.publish(bare), strict=True):
                errors[place] = error
            self._publisher = None  # the limit is another one, perhaps: ask for it
        _mark(cursor, "now", [t for t, error in zip(ticks, errors, strict=True) if error is None])
        for tick, error in zip(ticks, errors, strict=True):
            if error is not None and _is_refused(error):
                _mark(cursor, "epoch", [tick])
                logger.error(
                    "%s takes no record of the rejected tick %s: %s; it is in "
                    "tickwell.rejected_ticks, marked with the year 1970",
                    self._topic,
                    tick.key.decode(),
                    error.str(),
                )
        passing = [error for error in errors if error is not None and not _is_refused(error)]
        if passing:
            raise BrokerUnavailable(self._bootstrap, f"{self._topic}: {passing[0].str()}")
        return len(ticks) == BATCH or sum(len(tick.value or b"") for tick in ticks) >= BATCH_BYTES


def _is_refused(error: KafkaError | None) -> bool:
    return error is not None and error.code() in REFUSED


def _mark(cursor: Any, at: str, ticks: Sequence[RejectedTick]) -> None:
    if ticks:
        cursor.execute(
            MARK,
            {
                "at": at,
                "topic_ids": [tick.topic_id for tick in ticks],
                "partitions": [tick.partition for tick in ticks],
                "offsets": [tick.offset for tick in ticks],
                "indexes": [tick.index for tick in ticks],
            },
        )


class _Publisher:
    """A producer to one topic, that knows how large a batch may be there (`limit`, bytes).

    Raises `BrokerUnavailable` when the broker does not tell.
    """

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._topic = topic
        self.limit = max_message_bytes(bootstrap, topic)
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                # no idempotence: order means nothing here, and one refused message would make the
                # broker refuse those behind it
                "compression.type": "lz4",
                "partitioner": "murmur2_random",
                "message.max.bytes": max(1000, self.limit),
                # the broker's limit is on batches: several small ones must not pass it together
                "batch.size": max(1, self.limit // 2),
                "message.timeout.ms": DELIVERY_SECONDS * 1000,
                "log_level": 0,
            }
        )

    def publish(self, ticks: Sequence[RejectedTick]) -> list[KafkaError | None]:
        """What the broker said of each: None where it has it."""
        said: list[KafkaError | None] = [
            KafkaError(KafkaError._TIMED_OUT)  # unless the broker says more
        ] * len(ticks)

        def told(place: int) -> Any:
            def delivered(error: KafkaError | None, _: Any) -> None:
                said[place] = error

            return delivered

        for place, tick in enumerate(ticks):
            try:
                self._producer.produce(
                    self._topic,
                    key=tick.key,
                    value=None if tick.value is None else bytes(tick.value),
                    headers=tick.headers,
                    on_delivery=told(place),
                )
            except KafkaException as error:
                said[place] = error.args[0]
        if self._producer.flush(2 * DELIVERY_SECONDS):
            self._producer.purge()
        return list(said)
