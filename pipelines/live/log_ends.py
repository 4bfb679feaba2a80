"""Puts the ends of logs on record in Postgres, for those who ask up to when history is whole.

A partition in which nothing arrives stores nothing, so its rows do not say whether more may come
for a moment that is past. Its log's end does: what is stored up to an end that the broker named
after a moment has all that had arrived by then. Ends are facts about the log, whoever reports them
and whatever is stored, so nothing is compared when they are written; who reads them compares them
with the watermarks.

aiokafka notes an end when it takes in a response, which may have waited for it. The next response
was asked for after that: so an end is reported with the time of the response before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from threading import Event
from typing import NamedTuple
from uuid import UUID

from faust.types import TP

from pipelines.errors import StoreUnavailable
from pipelines.stores.postgres.connection import Database
from registry.resources import sql

REPORT_SECONDS = 5.0
"""Seconds between two reports: each writes a row a partition."""

REPORT = sql(__package__, "report_log_ends")


class LogEnd(NamedTuple):
    """An end of a log, which the broker named after `at`, nanoseconds UTC."""

    offset: int
    at: int


class LogEnds:
    """Notes ends in one thread, and reports them in another one to the Postgres at `url`.

    `topic_ids` has the incarnations that are read, by topic.
    """

    def __init__(
        self,
        url: str,
        topic_ids: Mapping[str, bytes],
        application_name: str = "tickwell",
        report_seconds: float = REPORT_SECONDS,
    ) -> None:
        self._database = Database(url, application_name)
        self._topic_ids = topic_ids
        self._report_seconds = report_seconds
        self._answered: dict[TP, float] = {}
        self._ends: dict[TP, LogEnd] = {}

    def note(self, ends: Mapping[TP, tuple[int, float]]) -> None:
        """Note the ends of partitions, and when responses named them, Unix seconds."""
        for tp, (end, at) in ends.items():
            before = self._answered.get(tp)
            if before is not None and at > before:
                self._ends[tp] = LogEnd(end, int(before * 10**9))
            self._answered[tp] = at
        for tp in self._answered.keys() - ends.keys():  # what another worker reads by now
            del self._answered[tp]

    def run(self, stop: Event) -> None:
        """Report what was noted, every few seconds."""
        try:
            while not stop.wait(self._report_seconds):
                self.report()
        finally:
            self.close()

    def close(self) -> None:
        """Close the connection."""
        self._database.close()

    def report(self) -> None:
        """Report what was noted since the last report. A store that is gone is tried again."""
        ends, self._ends = self._ends, {}
        if not ends:
            return
        told = {
            "topic_ids": [str(UUID(bytes=self._topic_ids[tp.topic])) for tp in ends],
            "partitions": [tp.partition for tp in ends],
            "offsets": [end.offset for end in ends.values()],
            "times": [end.at for end in ends.values()],
        }
        try:
            with self._database.transaction() as cursor:
                cursor.execute(REPORT, told)
        except StoreUnavailable:
            return  # the sink says so
