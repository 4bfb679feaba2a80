"""From a run to stored rows, however often it takes.

    decode ─► restore what is missing ─► compute ─► store
                 ▲                                    │
                 └── forget and compute again ◄───────┘ conflict, or the store was unavailable

Computing a run again is harmless: ticks at or before an entity's stored origin are passed over.

A run may be computed, and packed for the store, while that takes the one before it. What it
restores is of entities that the run before does not have, or they would be cached, so it does not
matter which of the two the store sees first. If the store does not take the run before, everything
that was computed since is forgotten.

Before anything of a run is loaded the sink makes sure that it is the one that writes its partition
(`stores.sink.Sink.begin`). Where another one may have written meanwhile, what is cached is
forgotten. The run is not computed ahead then: entities of the run before it would be loaded as they
were before that. The same holds where features were recorded meanwhile: runs are computed in the
newest row schema from then on, and what is cached is of windows of the one before.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from threading import Event
from typing import NamedTuple

from pipelines.compute.batch import Batch
from pipelines.compute.entity_names import EntityNames
from pipelines.compute.entity_state import LoadedStates
from pipelines.compute.run_computation import DecodedRun, RunComputation
from pipelines.errors import (
    NewerSchemaUnknown,
    SchemaBehind,
    SchemaRegistryUnavailable,
    StateConflict,
    StoreUnavailable,
    StoreWentBack,
    WatermarkContended,
    WatermarkMoved,
)
from pipelines.kafka.run import Run
from pipelines.runtime.patience import STALL_SECONDS, Patience
from pipelines.stores.sink import Sink, Store
from registry.definitions import RowSchema, Source
from registry.formats.origin import Origin

logger = logging.getLogger(__name__)

CONFLICTS = 20
"""A conflict is settled by reloading once, and so is a watermark that another worker moved. This
many in one run are no coincidence."""


class ComputedRun(NamedTuple):
    """A run that was computed ahead, when everything had been forgotten so many times."""

    batch: Batch
    store: Store
    forgotten: int


class Materializer:
    """Brings the runs of one source into one store.

    `newer` gives the computation in the newest row schema of the source, None where it is no newer
    than the given id; without it a worker that the store calls behind ends. A call of the store
    that takes longer than `stall_seconds` is reported as a refusal. A schema registry that the
    computation asks is waited for as the store is.
    """

    def __init__(
        self,
        computation: RunComputation,
        sink: Sink,
        stall_seconds: float = STALL_SECONDS,
        newer: Callable[[int], RunComputation | None] | None = None,
    ) -> None:
        self._computation = self._wanted = computation
        self._newer = newer
        self._sink = sink
        self._patience = Patience(f"the {sink.name} store", stall_seconds=stall_seconds)
        self._loading = Patience(f"the {sink.name} store", stall_seconds=stall_seconds)
        self._asking = Patience("the registry", stall_seconds=stall_seconds)
        self._forgotten = 0

    @property
    def retrying(self) -> str | None:
        """Why the store, or the schema registry, is waited for; any thread may read it."""
        registry = self._computation.registry
        reason = self._patience.reason or self._loading.reason or self._asking.reason
        return reason or (None if registry is None else registry.patience.reason)

    @property
    def needs_schemas(self) -> bool:
        """Whether the format of the source, or one that it had, needs a schema registry."""
        return self._computation.registry is not None

    @property
    def waits_for_schemas(self) -> bool:
        """Whether the schema registry is waited for; any thread may read it."""
        registry = self._computation.registry
        return registry is not None and registry.patience.reason is not None

    @property
    def source(self) -> str:
        """The name of the source."""
        return self._computation.source.name

    @property
    def topic(self) -> str:
        """The name of the source's topic."""
        return self._computation.source.topic

    @property
    def schema(self) -> RowSchema:
        """The row schema in which the next run is computed."""
        return self._wanted.schema

    @property
    def computation(self) -> RunComputation:
        """The computation by which the next run is computed."""
        return self._wanted

    def adopt(self, computation: RunComputation) -> None:
        """Compute by another computation of the source from the next run on. Any thread may call.

        What was computed ahead and is not stored yet is computed again by it.
        """
        if computation.schema.id > self._wanted.schema.id:
            logger.info(
                "%s is computed in row schema %d from now on",
                *(computation.source.name, computation.schema.id),
            )
        if computation.history != self._wanted.history:
            logger.info(
                "%s: %d ticks of an entity are kept from now on",
                *(computation.source.name, computation.history),
            )
        self._wanted = computation

    def forget(self) -> None:
        """Forget every state; the next run loads them from the store. For a new generation."""
        self._computation.forget_all()
        self._forgotten += 1

    def compute_ahead(self, run: Run) -> ComputedRun | None:
        """Compute a run while the one before it may not be stored yet.

        Returns None where that cannot be done now: no service is asked twice, since the run before
        may need this thread to be computed again. Raises as `materialize`.
        """
        try:
            if self._begin(run):
                return None
            forgotten = self._forgotten
            decoded = self._computation.decode(run)
            self._computation.restore(decoded, self._load)
        except SchemaRegistryUnavailable:
            return None
        except StoreUnavailable:
            self.forget()
            return None
        batch = self._computation.compute(decoded, self._sink.keeps_states)
        return ComputedRun(batch, self._sink.prepare(batch), forgotten)

    def is_current(self, computed: ComputedRun) -> bool:
        """Whether nothing was forgotten since a run was computed ahead; else it is not stored."""
        return computed.forgotten == self._forgotten

    def store(self, computed: ComputedRun) -> Batch | None:
        """Store a run that was computed ahead, once the one before it is stored.

        Returns the batch, None where it was not stored; `materialize_again` brings it in then.
        Another thread may compute the next run meanwhile. Raises as `materialize`.
        """
        if not self.is_current(computed):
            return None
        try:
            with self._patience.call():
                conflicts = computed.store()
        except (StoreUnavailable, WatermarkMoved, SchemaBehind):
            return None
        return None if conflicts else computed.batch

    def materialize_again(self, run: Run, stop: Event) -> Batch | None:
        """`materialize` a run after everything that was computed since the last stored one."""
        self.forget()
        return self.materialize(run, stop)

    def materialize(self, run: Run, stop: Event) -> Batch | None:
        """Store the rows of a run; returns once that is done, however long the store takes.

        Returns the batch, None when the store had the whole run already. Raises `Stopped` once
        `stop` is set while the store is unavailable, and errors that do not pass by themselves.
        """
        return self._patience.retry(partial(self._materialize, run, stop), stop)

    def _materialize(self, run: Run, stop: Event) -> Batch | None:
        """One attempt, which settles conflicts; `materialize` retries while the store refuses."""
        conflicts: Sequence[str] = ()
        for _ in range(CONFLICTS):
            self._begin(run)
            decoded = self._decode(run, stop)
            try:
                self._computation.restore(decoded, self._load)
                batch = self._computation.compute(decoded, self._sink.keeps_states)
                with self._patience.call():
                    conflicts = self._sink.store(batch)
            except SchemaBehind as behind:
                self.forget()
                self._catch_up(behind)
                continue
            except WatermarkMoved as moved:
                self.forget()
                rest = self._rest(run, moved.watermark)
                if rest is None:
                    return None
                run = rest
                continue
            except BaseException:
                # it may be stored or not, so the cached states may be ahead of the store
                self.forget()
                raise
            if not conflicts:
                return batch
            self.forget()
        if conflicts:
            raise StateConflict(len(conflicts), run.topic, run.partition)
        raise WatermarkContended(run.topic, run.partition, CONFLICTS)

    def _begin(self, run: Run) -> bool:
        """Have the sink write the run's partition; returns whether everything was forgotten."""
        with self._loading.call():
            is_new = self._sink.begin(run.topic_id, run.partition)
        wanted = self._wanted  # which another thread may change
        if not is_new and wanted is self._computation:
            return False
        self._computation = wanted
        self.forget()
        return True

    def _catch_up(self, behind: SchemaBehind) -> None:
        """Take the newest row schema. Raises `behind` where nobody knows of a newer one."""
        if self._newer is None:
            raise behind
        with self._asking.call():
            newer = self._newer(self._computation.schema.id)
        if newer is None:
            raise NewerSchemaUnknown(str(behind)) from behind
        self.adopt(newer)

    def _decode(self, run: Run, stop: Event) -> DecodedRun:
        decode, registry = partial(self._computation.decode, run), self._computation.registry
        return decode() if registry is None else registry.patience.retry(decode, stop)

    def _load(
        self, source: Source, entities: EntityNames, depth: int, before: Origin
    ) -> LoadedStates:
        with self._loading.call():
            return self._sink.load(source, entities, depth, before)

    def _rest(self, run: Run, watermark: int | None) -> Run | None:
        """The records of a run past the store's watermark; None when there are none.

        The watermark is ahead when this worker lost its partition while it was stopped and another
        worker continued. It is behind, or gone, only when the store lost what it had confirmed.
        """
        if watermark is None or watermark < run.base_offset:
            raise StoreWentBack(run.topic, run.partition, watermark, run.base_offset)
        if watermark >= run.next_offset:
            return None
        return run.since(watermark)
