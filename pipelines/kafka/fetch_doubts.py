"""When what a fetch brings may be of another incarnation of its topic than was asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from time import monotonic

from pipelines.kafka.fetch_by_id import Answer

GAP_SECONDS = 0.2
"""Seconds between two responses about a topic, by name, after which it may have been recreated
unseen. A fetch takes 50 ms; to delete a topic and create it with some records takes 100 to 300."""


class FetchDoubts:
    """Calls `doubt` when records that come may be of another incarnation of their topic.

    That is when a broker refuses a partition, as it does while a topic does not exist, when a fetch
    fails, and, of a response to a fetch by name, when the last one about a topic is longer ago than
    `GAP_SECONDS`, or is the first: the topic may have been recreated since, with nothing fetched
    that could be refused.
    """

    def __init__(self, doubt: Callable[[], None], clock: Callable[[], float] = monotonic) -> None:
        self._doubt = doubt
        self._clock = clock
        self._answered: dict[str, float] = {}

    def failed(self) -> None:
        """A fetch has got no response."""
        self._doubt()

    def answered(self, found: Sequence[Answer], by_id: bool) -> None:
        """A response came, by topic ids or by names."""
        now = self._clock()
        topics = {answer.topic for answer in found}
        gap = any(now - self._answered.get(topic, -math.inf) > GAP_SECONDS for topic in topics)
        if (gap and not by_id) or any(answer.error_code for answer in found):
            self._doubt()
        self._answered.update(dict.fromkeys(topics, now))
