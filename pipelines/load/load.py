"""A load's partitions, decided and computed as live does it, into Postgres.

    sort ─► decode ─► restore what is missing ─► compute ─► store, with the progress
     └── the next run meanwhile                                 └── meanwhile

The kernel, the rules and the row schema are those that live has. The windows of an entity begin
empty at the load's first tick, or go on from rows of loads that were done before; they never come
from live's rows, and live's never from these.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic
from typing import Any
from uuid import UUID

import pyarrow as pa
from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_random_exponential

from pipelines.compute.batch import Batch
from pipelines.compute.entity_names import EntityNames
from pipelines.compute.entity_state import LoadedStates, joined
from pipelines.compute.run_computation import RunComputation
from pipelines.errors import StoreUnavailable
from pipelines.kafka.run import Run
from pipelines.load.load_sink import APPLICATION, BatchStore, CountingSink, LoadSink
from pipelines.load.loads import Loads
from pipelines.load.sorted_runs import RUN_TICKS, Partition, SortedRun, Span, sorted_runs
from pipelines.load.spill import MALFORMED, ticks_file
from pipelines.produce.read_ahead import ahead
from pipelines.replay.replay import FAILURES, PATIENCE_SECONDS, Done, Report
from pipelines.replay.stop import Stop
from pipelines.replay.throttle import Throttle
from pipelines.stores.postgres.connection import Database
from pipelines.stores.postgres.states_from_rows import states_of
from pipelines.ticks.columns import NO_SEQ, Rejection
from pipelines.ticks.rejection_reasons import MALFORMED as MALFORMED_REASON
from registry.definitions import Catalog, RowSchema, Source
from registry.formats.loaded_rows import load_topic, loaded
from registry.formats.origin import Origin
from registry.formats.row import ValueStatus
from registry.language.program import compile_program
from registry.resources import sql
from registry.source_rules import SourceRules

STATES = sql(__package__, "states")
CAPACITY = 10_000
"""Number of entities whose windows are cached: one comes after the other."""

ROWS_A_PIECE = 10_000
"""Rows that are no ticks and are stored at once."""


@dataclass(frozen=True, slots=True)
class LoadPart:
    """A partition of a load, to be stored from offset `start` up to `end`."""

    number: int
    start: int
    end: int

    @property
    def offsets(self) -> int:
        """How many offsets there are to store."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Load:
    """Loads partitions that are spilled in `directory` into the database at `postgres`.

    `schema_id` is that of live's rows; `others` are the ids under which rows of other loads are
    stored, and `earlier` those of the loads that were done when this one began, whose ticks are in
    its windows: so they are the same ones whenever it goes on. Of entities in `overlaps` the ticks
    in these spans are stored already. `began_ns` is when rows that are no ticks became known. It
    pauses as a replay does, by the `heartbeats`. Without `stores` all is computed, and nothing
    stored.
    """

    postgres: str = field(repr=False)
    catalog: Catalog
    source: str
    load_id: bytes
    schema_id: int
    directory: Path
    overlaps: Mapping[str, Span]
    others: tuple[int, ...]
    earlier: tuple[bytes, ...]
    began_ns: int
    heartbeats: tuple[str, ...] = ()
    cluster: str | None = None
    run_ticks: int = RUN_TICKS
    stores: bool = True

    def run(self, part: LoadPart, report: Report, stop: Stop) -> Done:
        """Load a partition until it is done or `stop` is set; calls `report` after each run.

        It begins at the recorded progress, for a process that was killed may have begun the part;
        so does the next pass where a store was unavailable, which is waited for. Raises
        `StoreUnavailable` where that does not end (`replay.replay`), `LoadMoved`, `CannotSort` and
        other errors of `pipelines.errors`.
        """
        patience = _Patience(Done(), report, stop)
        retrying = Retrying(
            retry=retry_if_exception_type(StoreUnavailable),
            wait=wait_random_exponential(0.1, max=5),
            stop=patience.gives_up,
            before_sleep=patience.tell,
            reraise=True,
        )
        for attempt in retrying:
            with attempt:
                part = self._left(part)
                _PartLoad(self, part, report, stop, patience.done).run()
        return patience.done

    def _left(self, part: LoadPart) -> LoadPart:
        """What is left of a partition by the recorded progress."""
        if not self.stores:
            return part
        with Loads.at(self.postgres) as loads:
            return replace(part, start=loads.progress(self.load_id)[part.number][0])

    def partition(self, number: int) -> Partition:
        """A partition, as its ticks have it for their origin."""
        return Partition(self.directory, load_topic(self.source), self.load_id, number)

    def computation(self) -> RunComputation:
        """What decides and computes the runs."""
        schema = self.catalog.schemas[self.schema_id]
        written = RowSchema(loaded(schema.id), schema.source, schema.features)
        program = compile_program(self.catalog, schema)
        return RunComputation(self.rules, written, program, CAPACITY)

    @property
    def rules(self) -> SourceRules:
        """The rules that decide."""
        return SourceRules.of(self.catalog, self.source)


class _Patience:
    """How long errors without progress are borne: as long as a replay bears them."""

    def __init__(self, done: Done, report: Report, stop: Stop) -> None:
        self.done = done
        self._report = report
        self._stop = stop
        self._offsets = -1
        self._failures, self._since = 0, 0.0

    def gives_up(self, state: RetryCallState) -> bool:
        """Whether an error is the last one."""
        if self.done.offsets > self._offsets:
            self._offsets = self.done.offsets
            self._failures, self._since = 0, monotonic()
        self._failures += 1
        is_long = monotonic() - self._since > PATIENCE_SECONDS
        return self._stop.is_set() or (self._failures > FAILURES and is_long)

    def tell(self, state: RetryCallState) -> None:
        """Report what is waited for."""
        error = None if state.outcome is None else state.outcome.exception()
        self.done.waits = f"waiting: {error}"
        self._report(self.done)


class _PartLoad:
    """The load of one partition."""

    def __init__(self, load: Load, part: LoadPart, report: Report, stop: Stop, done: Done) -> None:
        self._load = load
        self._part = part
        self._report = report
        self._stop = stop
        self._done = done
        self._storing: Future[Any] | None = None

    def run(self) -> None:
        load = self._load
        with ExitStack() as stack:
            sink: BatchStore = LoadSink(load.postgres) if load.stores else CountingSink()
            stack.callback(sink.close)
            throttle = stack.enter_context(closing(Throttle(load.heartbeats, load.cluster)))
            storing = stack.enter_context(ThreadPoolExecutor(1, "store"))
            throttle.wait(self._stop, self._tell)
            for batch, passed_over in self._batches(stack):
                self._wait_stored()
                if self._stop.is_set():
                    break
                self._storing = storing.submit(self._store, sink, batch, passed_over)
                throttle.wait(self._stop, self._tell)
            self._wait_stored()

    def _batches(self, stack: ExitStack) -> Iterator[tuple[Batch, int]]:
        if self._part.number == MALFORMED:
            return ((batch, 0) for batch in self._malformed())
        return self._computed(stack)

    def _computed(self, stack: ExitStack) -> Iterator[tuple[Batch, int]]:
        load, part = self._load, self._part
        database = stack.enter_context(closing(Database(load.postgres, APPLICATION)))
        computation = load.computation()
        states = LoadedTicks(database, load, bool(part.start))
        runs = sorted_runs(
            load.partition(part.number), part.start, load.overlaps, None, load.run_ticks
        )
        for one in ahead(runs):
            if one.begins_anew:
                computation.forget_all()
            decoded = computation.decode(one.run)
            if decoded.missing:
                if one.begins_anew:
                    self._wait_stored()
                computation.restore(decoded, states.of(one))
            yield computation.compute(decoded), one.passed_over

    def _wait_stored(self) -> None:
        """Wait for the run before: its rows may be the state of what comes next."""
        if self._storing is not None:
            self._storing.result()

    def _malformed(self) -> Iterator[Batch]:
        """The rows that are no ticks, as runs without any."""
        load, part = self._load, self._part
        computation, partition = load.computation(), load.partition(MALFORMED)
        file, offset = ticks_file(load.directory, MALFORMED), 0
        with pa.OSFile(str(file)) as opened, pa.ipc.open_stream(opened) as blocks:
            for block in blocks:
                for begin in range(0, len(block), ROWS_A_PIECE):
                    rows = block.slice(begin, ROWS_A_PIECE)
                    base, offset = offset, offset + len(rows)
                    if offset <= part.start:
                        continue
                    skipped = max(0, part.start - base)
                    run = Run.empty(partition.topic, partition.topic_id, MALFORMED, base + skipped)
                    run = replace(run, next_offset=offset)
                    batch = computation.compute(computation.decode(run))
                    yield _rejecting(batch, rows.slice(skipped), load.began_ns)

    def _store(self, sink: BatchStore, batch: Batch, passed_over: int) -> None:
        size = sink.store(batch, passed_over)
        done = self._done
        done.offsets += batch.run.next_offset - batch.run.base_offset
        done.rows += len(batch)
        done.new_rows += len(batch)
        done.bytes += size
        done.passed_over += passed_over
        done.rejected.update(tick.reason for tick in batch.rejected)
        done.waits = None
        self._report(done)

    def _tell(self, why: str) -> None:
        self._done.waits = why
        self._report(self._done)


class LoadedTicks:
    """The states of entities, from rows of loads."""

    def __init__(self, database: Database, load: Load, resumes: bool) -> None:
        self._database = database
        self._load = load
        self._resumes = resumes
        self._schemas = sorted({*load.others, loaded(load.schema_id)})

    def of(self, sorted_run: SortedRun) -> Any:
        """What loads the states of a run's entities, as they were before their first ticks there.

        Without earlier loads there are none, but for those that were stored before this process
        began.
        """
        is_known = self._load.earlier or self._resumes or sorted_run.begins_anew
        self._resumes = False

        def load(source: Source, entities: EntityNames, depth: int, before: Origin) -> LoadedStates:
            if not is_known:
                return joined([], len(source.fields))
            names = list(entities)
            wanted = {
                "entities": names,
                "until": [sorted_run.firsts[name] for name in names],
                "schemas": self._schemas,
                "earlier": [str(UUID(bytes=one)) for one in self._load.earlier],
                "depth": depth,
                "topic_id": str(UUID(bytes=before.topic_id)),
                "before": before.offset,
                "no_seq": NO_SEQ,
                "closed": bytes([ValueStatus.CLOSED]),
            }
            found = states_of(self._database, STATES, wanted, range(len(names)), source)
            return joined([found], len(source.fields))

        return load


def _rejecting(batch: Batch, rows: pa.RecordBatch, known_at: int) -> Batch:
    """A batch without ticks that rejects the rows of its offsets."""
    base = batch.run.base_offset
    rejected = [
        Rejection(base + number, 0, MALFORMED_REASON, row["detail"], None, row["value"], known_at)
        for number, row in enumerate(rows.to_pylist())
    ]
    return replace(batch, rejected=rejected)
