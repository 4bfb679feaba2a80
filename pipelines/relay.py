"""Publishes rejected ticks to `ticks.rejected`, at least once.

The table is an outbox: the offline sink writes a rejected tick in the transaction that advances
the watermark, and the relay publishes what is not marked yet and marks it once the broker has it.
Killed between the two it publishes again; consumers tell copies by the key, the tick's origin. One
relay works at a time, whoever holds the advisory lock; the others stand by.
"""

from __future__ import annotations

import logging
from importlib.resources import files
from threading import Event
from typing import Any
from uuid import UUID

from confluent_kafka import KafkaException, Producer

from pipelines.errors import BrokerUnavailable, PipelineError
from pipelines.postgres import Database
from pipelines.topics import REJECTED

logger = logging.getLogger(__name__)
OUTBOX = files("pipelines").joinpath("sql/outbox.sql").read_text("utf-8")
LOCK = 7_242_019_004
BATCH = 500
"""Ticks a round; each may be a whole message of up to 256 KiB."""

IDLE_SECONDS = 1.0
AFTER_ERROR_SECONDS = 5.0


class Relay:
    """Runs in a thread of the offline worker; its failures never stall the sink."""

    def __init__(self, url: str, bootstrap: str, topic: str = REJECTED) -> None:
        self._database = Database(url, "tickwell relay")
        self._bootstrap = bootstrap
        self._topic = topic
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "compression.type": "lz4",
                "partitioner": "murmur2_random",
                "message.timeout.ms": 30_000,
                "log_level": 0,
            }
        )

    def run(self, stop: Event) -> None:
        """Relay until `stop` is set."""
        while not stop.is_set():
            try:
                relayed = self.relay()
            except PipelineError as error:
                logger.warning("rejected ticks wait to be relayed: %s", error)
                stop.wait(AFTER_ERROR_SECONDS)
                continue
            if relayed < BATCH:
                stop.wait(IDLE_SECONDS)
        self._database.close()

    def relay(self) -> int:
        """Publish and mark one batch; returns how many there were, 0 while another relay works.

        Raises `StoreUnavailable` and `BrokerUnavailable`; what was not marked is published again.
        """
        with self._database.cursor() as cursor:
            # held by this session until it ends: a relay that dies lets go
            cursor.execute("SELECT pg_try_advisory_lock(%s)", (LOCK,))
            if not cursor.fetchone()[0]:
                return 0
            try:
                cursor.execute(OUTBOX, (BATCH,))
                ticks = cursor.fetchall()
                if ticks:
                    self._publish(ticks)
                    cursor.execute(
                        "UPDATE tickwell.rejected_ticks SET relayed_at = now()"
                        ' WHERE (topic_id, partition, "offset", index) IN (SELECT * FROM unnest('
                        "%s::uuid[], %s::integer[], %s::bigint[], %s::integer[]))",
                        [
                            list(column)
                            for column in zip(*(tick[:4] for tick in ticks), strict=True)
                        ],
                    )
            finally:
                cursor.execute("SELECT pg_advisory_unlock(%s)", (LOCK,))
        return len(ticks)

    def _publish(self, ticks: list[Any]) -> None:
        failed: list[str] = []

        def delivered(error: Any, _: Any) -> None:
            if error is not None:
                failed.append(error.str())

        for topic_id, partition, offset, index, topic, reason, detail, value, known_at in ticks:
            headers = {
                "reason": reason,
                "detail": detail,
                "topic": topic,
                "topic_id": str(UUID(topic_id)),
                "partition": str(partition),
                "offset": str(offset),
                "index": str(index),
                "known_at": str(known_at),
            }
            try:
                self._producer.produce(
                    self._topic,
                    key=f"{topic_id}/{partition}/{offset}/{index}",
                    value=None if value is None else bytes(value),
                    headers=headers,
                    on_delivery=delivered,
                )
            except (BufferError, KafkaException) as error:
                failed.append(str(error))
        self._producer.flush(60)
        if failed or len(self._producer):
            why = failed[0] if failed else "no answer"
            raise BrokerUnavailable(self._bootstrap, f"{self._topic}: {why}")
