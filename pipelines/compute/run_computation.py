"""The computation of a run, the same for live and replay.

    Run ─► decode ─► DecodedRun ─► restore ─► compute ─► Batch
                      what is missing │ from the store

The steps are apart so that a caller can do other work between them: a replay stores one run while
it decodes the next, and waits for that store before it restores what may have to be stored first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipelines.compute.batch import Batch
from pipelines.compute.entity_names import EntityNames
from pipelines.compute.entity_slots import Touched
from pipelines.compute.entity_state import LoadedStates, StateColumns
from pipelines.compute.window_table import NewestValues, WindowTable
from pipelines.kafka.run import Run
from pipelines.ticks.columns import Ticks
from pipelines.ticks.rules_decoder import RulesDecoder
from pipelines.ticks.wire.schema_registry import SchemaRegistry
from registry.definitions import RowSchema, Source
from registry.formats.origin import Origin
from registry.language.program import Program
from registry.source_rules import SourceRules

Load = Callable[[Source, EntityNames, int, Origin], LoadedStates]
"""How states are loaded: `pipelines.stores.sink.Sink.load` of the caller's store."""


@dataclass(frozen=True, slots=True)
class DecodedRun:
    """The ticks of a run, their entities, and the names of those whose states are not cached."""

    ticks: Ticks
    touched: Touched
    missing: EntityNames


class RunComputation:
    """Computes the runs of one source, with the windows of about `capacity` entities cached.

    A run is decided by one set of `rules`: it is cut where others begin (`rules_decoder.by_rules`).

    A store is given `history` ticks of an entity, as many as the source of the program says: it is
    the newest one, and a history is no rule.

    A run that fails after `restore`, or whose batch is not stored, must be forgotten: the cached
    states may be ahead of the store. `partitions` and `registry` are those of
    `ticks.decoder.Decoder`.
    """

    def __init__(
        self,
        rules: SourceRules,
        schema: RowSchema,
        program: Program,
        capacity: int,
        partitions: int | None = None,
        registry: SchemaRegistry | None = None,
    ) -> None:
        self.source = rules.source
        self.schema = schema
        self.registry = registry
        self.history = program.source.history
        self._decoder = RulesDecoder(rules, partitions, registry)
        self._windows = WindowTable(self.source, schema, program, capacity)

    @property
    def depth(self) -> int:
        """How many ticks of an entity must be loaded."""
        return self._windows.depth

    def newest(self, states: StateColumns) -> NewestValues:
        """What the newest ticks of states, loaded with `depth`, have for values.

        Another thread than that which computes runs may call this.
        """
        return self._windows.newest(states)

    def decode(self, run: Run) -> DecodedRun:
        """Decode a run, once the runs before it are computed.

        Raises `SchemaRegistryUnavailable` while a schema of the run cannot be had.
        """
        ticks = self._decoder.decode(run)
        touched = self._windows.touch(ticks)
        return DecodedRun(ticks, touched, self._windows.names(self._windows.missing(touched)))

    def restore(self, decoded: DecodedRun, load: Load) -> None:
        """Load the missing states as they were where the run begins, and cache them."""
        if not decoded.missing:
            return
        run = decoded.ticks.run
        before = Origin(run.topic_id, run.partition, run.base_offset, 0)
        states = load(self.source, decoded.missing, self._windows.depth, before)
        self._windows.restore(self._windows.missing(decoded.touched), states)

    def compute(self, decoded: DecodedRun, with_states: bool = False) -> Batch:
        """The rows of a run whose missing states are restored; the windows move on.

        The states are there too, for a store that keeps them, where they are asked for.
        """
        history = self.history if with_states else None
        return self._windows.apply(decoded.ticks, decoded.touched, history)

    def forget_all(self) -> None:
        """Forget every state."""
        self._windows.forget_all()
