"""Training sets that are kept by name, and proved again from their kept entity rows.

What is kept of the entity rows is what the join read: key fields, and moments as they were
understood. Other columns are the caller's; a file that was built has them beside the features.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from threading import Event
from typing import IO, Any, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from registry.database.engine import connect
from registry.lifecycle import training_sets
from registry.lifecycle.audit import By
from registry.lifecycle.training_sets import StoredUntil, TrainingSet
from serving.errors import InvalidRequest, TooLarge
from serving.history.digests import ROWS, Digests
from serving.history.entity_rows import EntityRows
from serving.history.files import BUFFER_BYTES, pieces
from serving.history.made import Made
from serving.history.past_columns import PastColumn
from serving.history.point_in_time import PointInTimeJoin
from serving.history.ranges import Ranges
from serving.history.snapshot import CONNECT_SECONDS, SILENCE_MS, Snapshot, Stores, snapshot
from serving.history.stopped import Stopped
from serving.history.wanted import SetJoin, wanted_of

MOST_FRAME_BYTES = 256 << 20
"""Bytes of the entity rows of a set, as Parquet: some 30 million rows of a thousand symbols."""

CHUNK_BYTES = 4 << 20
"""Bytes of a piece of them, which is a row of its table."""


class Keeping(NamedTuple):
    """The name under which a set is kept, and who keeps it."""

    name: str
    by: By


class Keeper:
    """Keeps what is joined, to be saved under a name; used once, as a context.

    `most_bytes` is the limit of the entity rows.
    """

    def __init__(self, join: SetJoin, most_bytes: int = MOST_FRAME_BYTES) -> None:
        self._join = join
        self._most_bytes = most_bytes
        self._digests = Digests()
        self._ranges = Ranges()
        self._frame: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._writer: Any = None
        join.keep(self._keep, self._ranges)

    def __enter__(self) -> Keeper:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None and self._writer.is_open:
            with suppress(OSError):
                self._writer.close()
        self._frame.close()

    def _keep(self, rows: EntityRows, columns: Mapping[str, PastColumn]) -> None:
        """Keep the next rows. Raises `TooLarge`."""
        self._digests.add(rows, columns)
        stamps = pa.array(rows.moments).cast(pa.timestamp("ns", "UTC"))
        table = pa.table({**rows.keys, self._join.wanted.time_column: stamps})
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._frame, table.schema, compression="zstd")
        self._writer.write_table(table)
        if self._frame.tell() > self._most_bytes:
            raise TooLarge(
                f"the entity rows take more than {self._most_bytes:,} bytes, which is the most "
                "that is kept by name: build the set without a name; its file has its rows, and "
                "`tickwell training-set verify FILE` proves it"
            )

    def save(self, postgres: str, keeping: Keeping) -> None:
        """Put the set on record. Raises `RegistryError` and SQLAlchemy's `DBAPIError`."""
        if self._writer is not None:
            self._writer.close()
        report, made = self._join.report, self._join.made()
        row = {
            "name": keeping.name,
            "made": msgspec.to_builtins(made),
            "features": self._join.join.refs,
            "rows": report.rows,
            "statuses": {one: dict(counts) for one, counts in report.statuses.items()},
            "digests": self._digests.hexadecimal(),
            "sources": [
                msgspec.to_builtins(StoredUntil(*one)) for one in self._join.closed.partitions
            ],
            "frame_bytes": self._frame.tell(),
        }
        with _writing(postgres) as connection:
            training_sets.save(connection, keeping.by, row, self._chunks(), self._ranges.each())

    def _chunks(self) -> Iterator[bytes]:
        self._frame.seek(0)
        while chunk := self._frame.read(CHUNK_BYTES):
            yield chunk


def check_name(postgres: str, name: str) -> None:
    """Raises `RegistryError` where no set can be saved under a name, before it is built."""
    with _writing(postgres) as connection:
        training_sets.check_name(connection, name)


@contextmanager
def _writing(postgres: str) -> Iterator[Any]:
    engine = connect(postgres, CONNECT_SECONDS, silence_ms=SILENCE_MS, pool_size=1)
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


@dataclass
class Proved:
    """The result: of `rows` rows, whether each feature has the bits that it had.

    `missing` has, of those that have not, how many rows are missing by now, and were then: history
    that was filled in makes them fewer.
    """

    rows: int = 0
    same: dict[str, bool] = field(default_factory=dict)
    missing: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def is_same(self) -> bool:
        """Whether nothing differs."""
        return all(self.same.values())


def prove(stores: Stores, name: str, progress: Callable[[int, int], None], stop: Event) -> Proved:
    """Join the entity rows of a named set anew, with its versions, and compare the digests.

    `progress` takes the number of rows that are done, and of all. Raises `InvalidRequest` where
    what is kept is not what was, `UnknownVersion`, `UnknownFeature`, `DBAPIError`, and `Stopped`.
    """
    postgres, lake = stores
    with (
        snapshot(postgres, lake=lake) as seen,
        kept_set(seen, name) as (kept, source),
        ExitStack() as stack,
    ):
        made = msgspec.convert(kept.made, Made)
        join = SetJoin(seen, wanted_of(made), PointInTimeJoin.of_pins(seen, made.pins))
        digests = Digests()
        join.keep(digests.add)
        progress(0, kept.rows)
        if source is not None:
            asked = join.asked_in(source)
            stack.enter_context(join.sweeping(asked, kept.rows, progress, stop))
        for table in () if source is None else pieces(source, join.rows_a_piece):
            if stop.is_set():
                raise Stopped
            join.added(table)
            progress(join.done, kept.rows)
    return _compared(kept, digests.hexadecimal(), join)


@contextmanager
def kept_set(seen: Snapshot, name: str) -> Iterator[tuple[TrainingSet, Any]]:
    """What is on record of a named set, and its entity rows as an opened file; None without rows.

    Raises `UnknownVersion`.
    """
    with ExitStack() as stack:
        frame = stack.enter_context(tempfile.TemporaryFile())
        kept = training_sets.named(seen.connection, name)
        for chunk in training_sets.frame_of(seen.connection, name):
            frame.write(chunk)
        source = None
        if kept.rows:
            opened = pq.ParquetFile(frame, pre_buffer=False, buffer_size=BUFFER_BYTES)
            source = stack.enter_context(opened)
        yield kept, source


def _compared(kept: TrainingSet, found: Mapping[str, str], join: SetJoin) -> Proved:
    report = join.report
    if report.rows != kept.rows or found.get(ROWS) != kept.digests.get(ROWS):
        raise InvalidRequest(
            f"what is kept of the training set {kept.name} are not the rows that it was built of"
        )
    proved = Proved(kept.rows)
    for name in kept.made["pins"]:
        same = proved.same[name] = found.get(name) == kept.digests.get(name)
        if not same:
            before = kept.statuses.get(name, {}).get("missing", 0)
            proved.missing[name] = report.statuses[name]["missing"], before
    return proved
