"""Whether the topics that a worker reads are still those with which it started.

Records are fetched by topic id (`kafka.fetch_by_id`), so they are never those of another
incarnation; but from a broker that does not know such fetches they are fetched by name. After a
topic was deleted and recreated, a fetch by name at the old offsets is answered again as soon as the
new topic has as many records: by other records. So runs are delivered only while the topics are
known to be the old ones. They are looked up at an interval; before the first run; and when a fetch
is doubtful (`kafka.fetch_doubts`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

from pipelines.errors import PartitionsChanged, TopicRecreated
from pipelines.kafka.connection import KafkaConnection
from pipelines.kafka.topics import Topic, describe

FRESH_SECONDS = 10.0
"""Seconds for which a look-up is valid; one takes long while some brokers are unavailable."""


class Incarnations:
    """What is known of `topics`, by name; safe to use from any thread.

    Nothing is certain before the first look-up: between the one that found the topics and the first
    fetch a rebuild may take minutes.
    """

    def __init__(self, kafka: KafkaConnection, topics: Mapping[str, Topic]) -> None:
        self._kafka = kafka
        self._topics = topics
        self._confirmed = -math.inf
        self._doubted = 0.0

    @property
    def servers(self) -> str:
        """The brokers that have the topics."""
        return self._kafka.servers

    @property
    def ids(self) -> Mapping[str, bytes]:
        """The id of each topic by its name."""
        return {name: topic.topic_id for name, topic in self._topics.items()}

    @property
    def partitions(self) -> int:
        """The number of partitions of all topics together."""
        return sum(topic.partitions for topic in self._topics.values())

    @property
    def certain(self) -> bool:
        """Whether what is fetched now is of these incarnations."""
        confirmed = self._confirmed
        return confirmed > self._doubted and time.monotonic() - confirmed < FRESH_SECONDS

    def doubt(self) -> None:
        """Records that are fetched may be of other incarnations, until the next look-up."""
        self._doubted = time.monotonic()

    def confirm(self) -> None:
        """Look the topics up. Blocks.

        Raises `TopicRecreated` and `PartitionsChanged`; `TopicMissing` and `BrokerUnavailable`
        while nothing can be said.
        """
        begun = time.monotonic()
        now = describe(self._kafka, list(self._topics))
        for name, topic in self._topics.items():
            if now[name].topic_id != topic.topic_id:
                raise TopicRecreated(name)
            if now[name].partitions != topic.partitions:
                raise PartitionsChanged(name, topic.partitions, now[name].partitions)
        self._confirmed = begun
