"""Rows that are carried over into the newest row schema while a worker works.

Once a second the store is asked in which of the worker's partitions that is not finished for the
row schema in which runs are computed. There it is done in a thread of its own, a few entities at a
time, with pauses in which live has the store and the processor for itself. Nothing depends on how
long it takes, and a partition without ticks is like any other.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from threading import Event
from time import monotonic

from faust.types import TP

from pipelines.errors import PipelineError, StoreUnavailable
from pipelines.kafka.topics import Topic
from pipelines.live.materializer import Materializer
from pipelines.stores.carried_rows import CarriedRows, Home
from registry.definitions import RowSchema
from registry.formats.heartbeat import CarriedPartition

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""Seconds between two looks at what is not finished."""

SHARE = 0.25
"""The part of the time that is worked, as long as there is something to do."""

LONGEST_PAUSE = 1.0
"""Seconds between two pieces of work, at most."""


class Carrying:
    """Carries rows of the `materializers`, by source, over into the row schemas that they write.

    `topics` are those of the sources, by name; `assigned` gives the worker's partitions.
    """

    def __init__(
        self,
        rows: CarriedRows,
        materializers: Mapping[str, Materializer],
        topics: Mapping[str, Topic],
        assigned: Callable[[], Collection[TP]],
    ) -> None:
        self._rows = rows
        self._materializers = materializers
        self._topics = topics
        self._assigned = assigned
        self._said: dict[str, str] = {}
        """What is said of each source that something is wrong with."""
        self._finished: dict[str, Sequence[CarriedPartition]] = {}

    @property
    def finished(self) -> Sequence[CarriedPartition]:
        """Those of the worker's partitions that are finished, as of the last looks.

        Any thread may read it.
        """
        return [one for each in list(self._finished.values()) for one in each]

    def run(self, stop: Event) -> None:
        """Look, and do what there is to do, until `stop` is set."""
        while not stop.is_set():
            for source in self._materializers:
                self._try(source, stop)
            stop.wait(LOOK_SECONDS)

    def _try(self, source: str, stop: Event) -> None:
        """What stands in the way of one source, as a state that is damaged, stops no other one."""
        try:
            self.turn(source, stop)
        except StoreUnavailable:
            pass  # the sink reports it
        except PipelineError as error:
            if self._said.get(source) != str(error):
                logger.warning("%s: rows stay in older row schemas: %s", source, error)
            self._said[source] = str(error)
        else:
            self._said.pop(source, None)

    def turn(self, source: str, stop: Event) -> int:
        """Do what there is to do for a source; returns how many rows were written.

        Ends early where that is for nothing: where a newer row schema is written by now, where the
        worker has lost one of the partitions, and where `stop` is set. Raises `StoreUnavailable`.
        """
        work = self._materializers[source]
        computation, homes = work.computation, self._homes(source)
        todo = self._rows.unfinished(computation.schema, homes) if homes else ()
        self._note(source, computation.schema, homes.difference(todo))
        if not todo:
            return 0
        written, began = 0, monotonic()
        with closing(self._rows.carry(computation, todo)) as pieces:
            for rows in pieces:
                written += rows
                took = monotonic() - began
                if stop.wait(min(took / SHARE - took, LONGEST_PAUSE)):
                    return written
                if work.schema.id != computation.schema.id or set(todo) - self._homes(source):
                    return written
                began = monotonic()
        left = self._rows.unfinished(computation.schema, todo)
        self._note(source, computation.schema, homes.difference(left))
        if written:
            logger.info(
                "%s: %d entities that do not tick have their rows in row schema %d",
                *(source, written, computation.schema.id),
            )
        return written

    def _note(self, source: str, schema: RowSchema, finished: Collection[Home]) -> None:
        self._finished[source] = [
            CarriedPartition(home.topic_id.hex(), home.partition, schema.id)
            for home in sorted(finished)
        ]

    def _homes(self, source: str) -> set[Home]:
        topic = self._topics[self._materializers[source].topic]
        return {
            Home(topic.name, topic.topic_id, tp.partition)
            for tp in self._assigned()
            if tp.topic == topic.name
        }
