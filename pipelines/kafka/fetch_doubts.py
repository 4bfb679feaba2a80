"""When what a fetch brings may be of another incarnation of its topic than was asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from time import monotonic

from aiokafka import errors

from pipelines.kafka.fetch_by_id import Answer

KAFKA_STORAGE_ERROR, FENCED_LEADER_EPOCH, UNKNOWN_LEADER_EPOCH = 56, 74, 75
"""Codes that aiokafka has no errors for."""

GAP_SECONDS = 0.2
"""Seconds between two responses about a topic, by name, after which it may have been recreated
unseen. A fetch takes 50 ms; to delete a topic and create it with some records takes 100 to 300."""


LEADERLESS = frozenset(
    {
        errors.LeaderNotAvailableError.errno,
        errors.NotLeaderForPartitionError.errno,
        errors.ReplicaNotAvailableError.errno,
        KAFKA_STORAGE_ERROR,
        FENCED_LEADER_EPOCH,
        UNKNOWN_LEADER_EPOCH,
    }
)
"""Codes by which a broker says that another one leads the partition, or none does yet."""


class FetchDoubts:
    """Calls `doubt` when records that come may be of another incarnation of their topic.

    That is when a broker refuses a partition, as it does while a topic does not exist, and, of a
    response to a fetch by name, when the last one about a topic is longer ago than `GAP_SECONDS`,
    is the first, or a fetch has failed since: the topic may have been recreated, with nothing
    fetched that could be refused.

    No doubt comes of a broker that is gone, nor of one that does not lead a partition any more,
    where fetches are by id: what the next leader has is of the same topic or refused. Runs of all
    partitions would wait for a look-up, while there are fewer brokers to answer it.
    """

    def __init__(self, doubt: Callable[[], None], clock: Callable[[], float] = monotonic) -> None:
        self._doubt = doubt
        self._clock = clock
        self._answered: dict[str, float] = {}

    def failed(self) -> None:
        """A fetch has got no response."""
        self._answered.clear()

    def answered(self, found: Sequence[Answer], by_id: bool) -> None:
        """A response came, by topic ids or by names."""
        now = self._clock()
        topics = {answer.topic for answer in found}
        gap = any(now - self._answered.get(topic, -math.inf) > GAP_SECONDS for topic in topics)
        refusals = {answer.error_code for answer in found if answer.error_code}
        if (gap and not by_id) or (refusals - LEADERLESS if by_id else refusals):
            self._doubt()
        self._answered.update(dict.fromkeys(topics, now))
