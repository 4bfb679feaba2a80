"""Rows of a file to ticks in a topic.

CSV and Parquet are read a batch of rows at a time. Messages have the form of the source; their key
is the source's first key field, and the partitioner is the one of Java's clients.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from confluent_kafka import KafkaException, Producer

from pipelines.errors import BrokerUnavailable, PipelineError
from pipelines.times import NANOSECONDS, parse_rfc_3339
from registry.definitions import Source

BATCH_ROWS = 10_000
FLUSH_SECONDS = 30.0


class ColumnMissing(PipelineError):
    """The file has no column for a field."""

    def __init__(self, file: Path, field: str, there: list[str]) -> None:
        super().__init__(
            f"{file} has no column {field}; it has {', '.join(there)}. Name the one that holds it: "
            f"--map {field}=COLUMN"
        )


class BadRow(PipelineError):
    """A row cannot be made a tick."""

    def __init__(self, file: Path, row: int, what: str) -> None:
        super().__init__(f"{file}, row {row}: {what}")


@dataclass(frozen=True, slots=True)
class Tick:
    """A message to send."""

    key: bytes
    value: bytes


@dataclass(slots=True)
class Sent:
    """How far sending is."""

    sent: int = 0
    delivered: int = 0
    failed: int = 0
    error: str = ""


def count_rows(file: Path) -> int | None:
    """How many rows a Parquet file has; None for a CSV, which would have to be read."""
    if file.suffix == ".parquet":
        rows: int = pyarrow.parquet.ParquetFile(file).metadata.num_rows
        return rows
    return None


def read_ticks(
    file: Path, source: Source, columns: Mapping[str, str], as_if_now: bool = False
) -> Iterator[Tick]:
    """The ticks of a file, in its order.

    `columns` names the column of a field where the two differ. With `as_if_now` a tick's time is
    the moment it is read. Raises `ColumnMissing`, `BadRow`, and OSError.
    """
    needed = [*source.key, *(f.name for f in source.fields if f.required)]
    needed += [] if as_if_now else ["ts"]
    optional = [f.name for f in source.fields if not f.required] + ["seq", "op"]
    encode = msgspec.json.Encoder().encode
    number = 0
    for batch in _batches(file):
        there = list(batch.schema.names)
        names = {field: columns.get(field, field) for field in (*needed, *optional)}
        for field in (*needed, *columns):
            if columns.get(field, field) not in there:
                raise ColumnMissing(file, field, there)
        used = {field: name for field, name in names.items() if name in there}
        for row in batch.select(list(dict.fromkeys(used.values()))).to_pylist():
            number += 1
            tick = {field: row[name] for field, name in used.items() if row[name] is not None}
            for field in source.key:
                tick[field] = str(tick.get(field, ""))
            for field in source.field_names:
                value = tick.get(field)
                if isinstance(value, float) and math.isnan(value):
                    del tick[field]
            tick["ts"] = (
                time.time_ns() // NANOSECONDS[source.ts_unit]
                if as_if_now
                else _timestamp(tick.get("ts"), source, file, number)
            )
            yield Tick(tick[source.key[0]].encode(), encode(tick))


def _batches(file: Path) -> Iterator[Any]:
    if file.suffix == ".parquet":
        yield from pyarrow.parquet.ParquetFile(file).iter_batches(BATCH_ROWS)
    elif file.suffix in (".csv", ".gz"):
        try:
            with pyarrow.csv.open_csv(file) as reader:
                yield from reader
        except pa.ArrowInvalid as error:
            raise PipelineError(f"{file}: {error}") from None
    else:
        raise PipelineError(f"{file}: its name must end in .csv, .csv.gz or .parquet")


def _timestamp(value: Any, source: Source, file: Path, row: int) -> int | str:
    """An integer is taken in the source's unit; a date is its midnight, UTC."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, datetime):
        moment = value if value.tzinfo else value.replace(tzinfo=UTC)
        return moment.isoformat()
    if isinstance(value, date):
        return f"{value.isoformat()}T00:00:00Z"
    if isinstance(value, str) and parse_rfc_3339(value) is not None:
        return value
    raise BadRow(file, row, f"ts {value!r} is neither an integer ({source.ts_unit}) nor a time")


class TickProducer:
    """Sends ticks, in order for each key, and counts what the broker has taken."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._bootstrap = bootstrap
        self._topic = topic
        self.sent = Sent()
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "partitioner": "murmur2_random",
                "enable.idempotence": True,
                "compression.type": "lz4",
                "linger.ms": 5,
                "log_level": 0,
            }
        )

    def send(self, tick: Tick) -> None:
        """Send one tick; waits while too many are under way."""
        while True:
            try:
                self._producer.produce(
                    self._topic, key=tick.key, value=tick.value, on_delivery=self._delivered
                )
            except BufferError:
                self._producer.poll(0.1)
                continue
            except KafkaException as error:
                raise BrokerUnavailable(self._bootstrap, error.args[0].str()) from None
            break
        self.sent.sent += 1
        self._producer.poll(0)

    def send_all(
        self, ticks: Iterator[Tick], rate: float | None, progress: Callable[[Sent], None]
    ) -> Sent:
        """Send ticks, at most `rate` a second. Raises `BrokerUnavailable` if any was not taken."""
        began = time.monotonic()
        for number in count():
            if rate is not None:
                ahead = number / rate - (time.monotonic() - began)
                if ahead > 0:
                    self._producer.poll(0)
                    time.sleep(ahead)
            # read only now: its time may be the moment
            tick = next(ticks, None)
            if tick is None:
                break
            self.send(tick)
            if number % 1000 == 0 or (rate is not None and rate < 1000):
                progress(self.sent)
        self.flush()
        progress(self.sent)
        return self.sent

    def flush(self) -> None:
        """Wait until all are taken. Raises `BrokerUnavailable` if any was not."""
        self._producer.flush(FLUSH_SECONDS)
        missing = self.sent.sent - self.sent.delivered
        if missing:
            why = self.sent.error or f"no answer in {FLUSH_SECONDS:g} s"
            raise BrokerUnavailable(
                self._bootstrap, f"{missing} of {self.sent.sent} ticks were not taken: {why}"
            )

    def _delivered(self, error: Any, _: Any) -> None:
        if error is None:
            self.sent.delivered += 1
        else:
            self.sent.failed += 1
            self.sent.error = error.str()
