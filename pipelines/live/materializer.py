"""From a run to stored rows, however often it takes.

    decode ─► load what is not at hand ─► kernel ─► store
                 ▲                                    │
                 └── forget and compute again ◄───────┘ conflict, or the store was away

Computing a run again is harmless: ticks at or before an entity's stored origin are passed over.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from threading import Event

from pipelines.compute.batch import Batch
from pipelines.compute.window_table import WindowTable
from pipelines.errors import (
    StateConflict,
    StoreWentBack,
    WatermarkContended,
    WatermarkMoved,
)
from pipelines.kafka.run import Run
from pipelines.runtime.patience import STALL_SECONDS, Patience
from pipelines.stores.sink import Sink
from pipelines.ticks.decoder import Decoder
from registry.definitions import RowSchema, Source
from registry.formats.origin import Origin
from registry.language.program import Program

CONFLICTS = 20
"""A conflict is settled by reloading once, and so is a watermark that another worker moved. This
many in one run are no coincidence."""


class Materializer:
    """Brings the runs of one source into one store.

    A call of the store that takes longer than `stall_seconds` is reported as a refusal.
    """

    def __init__(
        self,
        source: Source,
        schema: RowSchema,
        program: Program,
        sink: Sink,
        capacity: int,
        stall_seconds: float = STALL_SECONDS,
    ) -> None:
        self._sink = sink
        self._source = source
        self._decoder = Decoder(source)
        self._windows = WindowTable(source, schema, program, capacity)
        self._patience = Patience(f"the {sink.name} store", stall_seconds=stall_seconds)

    @property
    def retrying(self) -> str | None:
        """Why the store refuses, None while it does not; any thread may read it."""
        return self._patience.reason

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
        return self._patience.retry(partial(self._materialize, run), stop)

    def _materialize(self, run: Run) -> Batch | None:
        """One attempt; conflicts are settled here, an absent store by the caller."""
        conflicts: Sequence[str] = ()
        for _ in range(CONFLICTS):
            ticks = self._decoder.decode(run)
            try:
                missing = self._windows.missing(ticks)
                before = Origin(run.topic_id, run.partition, run.base_offset, 0)
                with self._patience.call():
                    states = self._sink.load(self._source, missing, self._windows.depth, before)
                self._windows.restore(missing, states)
                batch = self._windows.apply(ticks)
                with self._patience.call():
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
