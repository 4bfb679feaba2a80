"""Relays rejected ticks from Postgres to `ticks.rejected`, at least once.

The table is an outbox: the offline sink writes a rejected tick in the transaction that advances
the watermark, and the relay publishes what is not marked yet and marks it once the broker has it.
Killed before its own transaction is committed it publishes again; consumers recognize copies by the
key, the tick's origin.
One relay works at a time, the one that holds the advisory lock; the others stand by.

No tick holds up the others. With its key and headers a rejected message can be larger than the
broker takes, though the broker once took it without them: then its value is cut, and the header
`truncated` says so. A message that the broker refuses even without a value is marked with the year
1970, so that it can be found; the table has the original bytes of all of them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from threading import Event
from typing import Any

from confluent_kafka import KafkaError

from pipelines.errors import PipelineError
from pipelines.kafka.connection import KafkaConnection
from pipelines.kafka.rights import refusal, topic
from pipelines.kafka.topics import REJECTED
from pipelines.live.rejected_publisher import RejectedPublisher, is_refused
from pipelines.live.rejected_tick import RejectedTick
from pipelines.stores.postgres.connection import Database
from registry.resources import sql

logger = logging.getLogger(__name__)

OUTBOX = sql(__package__, "outbox")
MARK = sql(__package__, "mark_relayed")

LOCK = 7_242_019_004
"""The key of the advisory lock."""

BATCH_TICKS = 500
"""Ticks that are published together at most."""

BATCH_BYTES = 4 * 1024 * 1024
"""Bytes of their values, but for the first one: a value may be a whole message of a megabyte."""

PUBLISH_MS = 150_000
"""Milliseconds for which the transaction may wait for the broker: longer than `publish`, twice."""

IDLE_SECONDS = 1.0
"""Seconds between two reads of an empty outbox."""

AFTER_ERROR_SECONDS = 5.0
"""Seconds from an error to the next attempt."""


class Relay:
    """Runs in a thread of the offline worker; its failures never stall the sink.

    `url` is the database, `kafka` the brokers, `batch_bytes` is as `BATCH_BYTES`.
    """

    def __init__(
        self,
        url: str,
        kafka: KafkaConnection,
        topic: str = REJECTED,
        batch_bytes: int = BATCH_BYTES,
    ) -> None:
        self._database = Database(url, "tickwell relay", idle_timeout_ms=PUBLISH_MS)
        self._kafka = kafka
        self._topic = topic
        self._batch_bytes = batch_bytes
        self._publisher: RejectedPublisher | None = None

    def run(self, stop: Event) -> None:
        """Relay until `stop` is set."""
        while not stop.is_set():
            try:
                more = self.relay()
            except PipelineError as error:
                logger.warning("rejected ticks wait to be relayed: %s", error)
                stop.wait(AFTER_ERROR_SECONDS)
            except Exception:  # a relay that ended would not be noticed
                logger.exception("rejected ticks wait to be relayed")
                stop.wait(AFTER_ERROR_SECONDS)
            else:
                if not more:
                    stop.wait(IDLE_SECONDS)
        self.close()

    def close(self) -> None:
        """Close the connection to the database."""
        self._database.close()

    def relay(self) -> bool:
        """Publish and mark one batch; returns whether more may wait, False while another works.

        Raises `StoreUnavailable` and `BrokerUnavailable`; what was not marked is published again.
        """
        with self._database.transaction() as cursor:
            # The transaction holds the lock, and loses it when the relay dies, or stands still.
            cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", (LOCK,))
            if not cursor.fetchone()[0]:
                return False
            more, passing = self._relay(cursor)
        if passing is not None:
            raise refusal(self._kafka.servers, passing, "Write", topic(self._topic))
        return more

    def _relay(self, cursor: Any) -> tuple[bool, KafkaError | None]:
        """Whether more may wait, and an error that passes, of ticks that are not marked."""
        if self._publisher is None:
            self._publisher = RejectedPublisher(self._kafka, self._topic)
        limit = self._publisher.limit
        bounds = {"ticks": BATCH_TICKS, "bytes": self._batch_bytes, "limit": limit}
        cursor.execute(OUTBOX, bounds)
        ticks = [RejectedTick(*row) for row in cursor.fetchall()]
        errors = self._publisher.publish([tick.fitted(limit) for tick in ticks])
        refused = [index for index, error in enumerate(errors) if is_refused(error)]
        if refused:
            bare = [replace(ticks[index], value=None) for index in refused]
            for index, error in zip(refused, self._publisher.publish(bare), strict=True):
                errors[index] = error
            self._publisher = None  # the limit may have changed: the next one asks for it
        _mark(cursor, "now", [t for t, error in zip(ticks, errors, strict=True) if error is None])
        for tick, error in zip(ticks, errors, strict=True):
            if error is not None and is_refused(error):
                _mark(cursor, "epoch", [tick])
                logger.error(
                    "%s refuses a record of the rejected tick %s: %s; it is in "
                    "tickwell.rejected_ticks, marked with the year 1970",
                    self._topic,
                    tick.key.decode(),
                    error.str(),
                )
        passing = [error for error in errors if error is not None and not is_refused(error)]
        published = sum(len(tick.value or b"") for tick in ticks)
        more = len(ticks) == BATCH_TICKS or published >= self._batch_bytes
        return more, passing[0] if passing else None


def _mark(cursor: Any, time: str, ticks: Sequence[RejectedTick]) -> None:
    """Mark ticks as relayed at a time, "now" or "epoch"."""
    if ticks:
        cursor.execute(
            MARK,
            {
                "at": time,
                "topic_ids": [tick.topic_id for tick in ticks],
                "partitions": [tick.partition for tick in ticks],
                "offsets": [tick.offset for tick in ticks],
                "indexes": [tick.index for tick in ticks],
            },
        )
