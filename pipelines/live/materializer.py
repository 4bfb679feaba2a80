"""From a run to stored rows, however often it takes.

    decode ─► load what is not at hand ─► kernel ─► store
                 ▲                                    │
                 └── forget and compute again ◄───────┘ conflict, or the store was away

Computing a run again is harmless: ticks at or before an entity's stored origin are passed over.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from threading import Event
from typing import Any

from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_random_exponential

from pipelines.compute.batch import Batch
from pipelines.compute.window_table import WindowTable
from pipelines.errors import (
    StateConflict,
    Stopped,
    StoreUnavailable,
    StoreWentBack,
    WatermarkContended,
    WatermarkMoved,
)
from pipelines.kafka.run import Run
from pipelines.runtime.patience import PATIENCE, Stall
from pipelines.stores.sink import Sink
from pipelines.ticks.decoder import Decoder
from registry.definitions import RowSchema, Source
from registry.formats.origin import Origin
from registry.language.program import Program

logger = logging.getLogger(__name__)

CONFLICTS = 20
"""A conflict is settled by reloading once, and so is a watermark that another worker moved. This
many in one run are no coincidence."""

LONGEST_WAIT = 5.0
"""Seconds between attempts while the store is away."""


class Materializer:
    """Brings the runs of one source into one store.

    A call to the store that takes longer than `patience` seconds counts as refused.
    """

    def __init__(
        self,
        source: Source,
        schema: RowSchema,
        program: Program,
        sink: Sink,
        capacity: int,
        patience: float = PATIENCE,
    ) -> None:
        self._sink = sink
        self._source = source
        self._decoder = Decoder(source)
        self._windows = WindowTable(source, schema, program, capacity)
        self._refused: str | None = None
        self._stall = Stall(f"the {sink.name} store", patience)

    @property
    def retrying(self) -> str | None:
        """Why the store refuses, None while it does not; any thread may read it."""
        return self._refused or self._stall.reason

    @property
    def source(self) -> str:
        """The name of the source."""
        return self._source.name

    def forget(self) -> None:
        """Forget every state; the next run loads them from the store. For a new generation."""
        self._windows.forget()

    def materialize(self, run: Run, stop: Event) -> Batch | None:
        """Store what comes of a run; returns once that is done, however long the store is away.

        Returns the batch, None when the store had the whole run already. Raises `Stopped` once
        `stop` is set while the store is away, and errors that waiting does not mend.
        """

        def pause(seconds: float) -> None:
            stop.wait(seconds)

        retrying = Retrying(
            retry=retry_if_exception_type(StoreUnavailable),
            wait=wait_random_exponential(0.05, max=LONGEST_WAIT),
            before_sleep=self._say_why,
            sleep=pause,
            stop=lambda _: stop.is_set(),
            retry_error_callback=_stopped,
        )
        batch: Batch | None = retrying(self._materialize, run)
        if self._refused is not None:
            logger.info("the %s store answers again", self._sink.name)
            self._refused = None
        return batch

    def _materialize(self, run: Run) -> Batch | None:
        """One attempt; conflicts are settled here, an absent store by the caller."""
        conflicts: Sequence[str] = ()
        for _ in range(CONFLICTS):
            ticks = self._decoder.decode(run)
            try:
                missing = self._windows.missing(ticks)
                before = Origin(run.topic_id, run.partition, run.base_offset, 0)
                with self._stall.asked():
                    states = self._sink.load(self._source, missing, self._windows.depth, before)
                self._windows.restore(missing, states)
                batch = self._windows.apply(ticks)
                with self._stall.asked():
                    conflicts = self._sink.store(batch)
            except WatermarkMoved as moved:
                self._windows.forget(ticks.entities)
                rest = self._rest(run, moved.watermark)
                if rest is None:
                    return None
                run = rest
                continue
            except BaseException:
                # whether it was stored is not known, so what is at hand may be ahead of the store
                self._windows.forget(ticks.entities)
                raise
            if not conflicts:
                return batch
            self._windows.forget(ticks.entities)
        if conflicts:
            raise StateConflict(len(conflicts), run.topic, run.partition)
        raise WatermarkContended(run.topic, run.partition, CONFLICTS)

    def _rest(self, run: Run, watermark: int | None) -> Run | None:
        """What of a run is past the store's watermark; None when nothing is.

        The watermark is ahead when this worker lost its partition while it was stopped and another
        went on. It is behind, or gone, only when the store lost what it had confirmed.
        """
        if watermark is None or watermark < run.base_offset:
            raise StoreWentBack(run.topic, run.partition, watermark, run.base_offset)
        if watermark >= run.next_offset:
            return None
        return run.since(watermark)

    def _say_why(self, state: RetryCallState) -> None:
        error = None if state.outcome is None else state.outcome.exception()
        if self._refused is None:
            logger.warning("the %s store is away, waiting: %s", self._sink.name, error)
        self._refused = str(error)


def _stopped(state: RetryCallState) -> Any:
    raise Stopped("the worker was asked to stop while its store was away")
