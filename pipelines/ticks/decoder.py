"""A run's messages to columns of ticks.

One compiled pass (`ticks.json_scanner`) takes what nearly all producers send. Each message that it
leaves goes to `ticks.reference_decoder`, which is the definition. So the result of a tick never
depends on the other ticks of its run, nor on which of the two decoders took it. Messages in a
format of a schema registry are made JSON before (`ticks.wire.formats`), for both decoders.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipelines.kafka.run import Run
from pipelines.runtime.array_types import Bytes, Int64s
from pipelines.ticks.columns import Rejection, Ticks
from pipelines.ticks.event_time import LATEST
from pipelines.ticks.joined_ticks import compact, joined
from pipelines.ticks.json_scanner import scan
from pipelines.ticks.message_elements import Element, Message, PassedOver, Rejected, split
from pipelines.ticks.reference_decoder import Tick, judge
from pipelines.ticks.scanned_columns import Layout, ScannedTicks
from pipelines.ticks.source_reading import Reading
from pipelines.ticks.wire.formats import MOST_JSON_BYTES, JsonRun, WireFormat
from pipelines.ticks.wire.schema_registry import SchemaRegistry
from registry.definitions import Source

NO_TIMESTAMP = -1
"""Kafka's timestamp of a record that has none."""


class Decoder:
    """Decodes the runs of one source. It keeps no state but schemas, which never change.

    `partitions` is the number of partitions of the source's topic. Without it no tick is rejected
    for the partition that it came from: for messages that are not in a topic yet. `registry` has
    the schemas of a source whose `format` needs them; what it makes JSON is decoded in parts of at
    most `most_json_bytes`. Raises `FormatUnreadable`.
    """

    def __init__(
        self,
        source: Source,
        partitions: int | None = None,
        registry: SchemaRegistry | None = None,
        most_json_bytes: int = MOST_JSON_BYTES,
    ) -> None:
        self.source = source
        self._partitions = partitions
        self._reading = Reading.of(source)
        self._layout = Layout.of(source, partitions)
        self._format = (
            None if source.format == "json" else WireFormat(source, registry, most_json_bytes)
        )

    def decode(self, run: Run) -> Ticks:
        """The ticks of a run, in order, and what decoding rejects of it.

        Raises `SchemaRegistryUnavailable` while a schema of the run cannot be had.
        """
        if self._format is None:
            return self._decoded(JsonRun(run, run, {}))
        own = len(run.data)
        return joined(run, [compact(self._decoded(p), own) for p in self._format.as_json(run)])

    def _decoded(self, read: JsonRun) -> Ticks:
        run = read.original
        # producers may set any timestamp, and nanoseconds have 64 bits
        known_at = np.clip(run.timestamps, NO_TIMESTAMP, LATEST // 10**6) * 10**6
        scanned = scan(read.run, self._layout, known_at)
        judged = _Judged(read, self._reading, self._partitions, known_at)
        for record in scanned.left.tolist():
            judged.judge(record)
        found, data = scanned.ticks, scanned.data
        if judged.ticks:
            found, data = judged.merged(scanned.ticks, scanned.data)
        return Ticks(
            run=run,
            source=self.source,
            data=data,
            keys=found.keys,
            raw=found.raw if self._format is None else _originals(found, run, read.run),
            record=found.record,
            offset=run.offsets[found.record],
            index=found.index_in_message,
            tick_time=found.tick_time,
            seq=found.seq,
            op=found.op,
            fields=found.fields,
            known_at=known_at[found.record],
            seq_text=found.seq_text,
            rejected=judged.rejected,
            passed_over=scanned.passed_over + judged.passed_over,
        )


def _originals(found: ScannedTicks, run: Run, read: Run) -> Int64s:
    """Where the original bytes are of ticks of `run` that were read as JSON, `read`.

    A message that is a tick has those of its producer, which `read` begins with. An element of an
    array has no bytes of its own in them, and keeps its JSON, which is shorter than its message's.
    """
    sizes, of_messages = (spans[:, 1] - spans[:, 0] for spans in (found.raw, read.values))
    is_whole = sizes == of_messages[found.record]
    return np.where(is_whole[:, None], run.values[found.record], found.raw)


class _Judged:
    """The ticks and rejections of the messages of a run that are decoded one at a time."""

    def __init__(
        self,
        read: JsonRun,
        reading: Reading,
        partitions: int | None,
        known_at: Int64s,
    ) -> None:
        self._run = read.original
        self._read = read
        self._reading = reading
        self._partitions = partitions
        self._known_at = known_at
        self.ticks: list[tuple[int, Element, Tick]] = []
        """Record, its element, and the tick that it is."""
        self.rejected: list[Rejection] = []
        self.passed_over = 0

    def judge(self, record: int) -> None:
        """Judge each tick of the message of a record."""
        run, read, reading = self._run, self._read, self._reading
        headers = run.headers_of(record) if reading.needs_headers else {}
        value = read.run.value(record)
        message = Message(
            value, run.key(record), int(self._known_at[record]), run.partition, headers
        )
        try:
            if record in read.failed:
                raise read.failed[record]
            elements = list(split(message, reading))
        except Rejected as rejected:
            self._reject(record, 0, run.value(record), rejected)
            return
        except PassedOver:
            self.passed_over += 1
            return
        for element in elements:
            try:
                tick = judge(element, message, reading, self._partitions)
            except Rejected as rejected:
                is_whole = element.raw == value
                own = run.value(record) if is_whole else element.raw
                self._reject(record, element.index, own, rejected)
            except PassedOver:
                self.passed_over += 1
            else:
                self.ticks.append((record, element, tick))

    def merged(self, scanned: ScannedTicks, data: Bytes) -> tuple[ScannedTicks, Bytes]:
        """These ticks among the scanned ones, in the order of the log, and the bytes of both.

        The texts of these ticks are written behind `data`, which has those of the scanned ones.
        """
        texts, behind = bytearray(), len(data)

        def written(text: bytes) -> tuple[int, int]:
            nonlocal texts
            start = behind + len(texts)
            texts += text
            return start, start + len(text)

        judged: dict[str, list[Any]] = {
            "record": [record for record, *_ in self.ticks],
            "index_in_message": [element.index for _, element, _ in self.ticks],
            "keys": [[written(text.encode()) for text in tick.key] for *_, tick in self.ticks],
            "raw": [written(element.raw or b"") for _, element, _ in self.ticks],
            "tick_time": [tick.tick_time for *_, tick in self.ticks],
            "seq": [tick.seq for *_, tick in self.ticks],
            "op": [tick.op for *_, tick in self.ticks],
            "fields": [tick.fields for *_, tick in self.ticks],
            "seq_text": [
                (0, 0) if tick.seq_text is None else written(tick.seq_text.encode())
                for *_, tick in self.ticks
            ],
        }
        # a message is scanned or judged as a whole, so the order within each stays as it is
        order = np.argsort(np.concatenate([scanned.record, judged["record"]]), kind="stable")

        def both(name: str, column: Any) -> Any:
            more = np.array(judged[name], column.dtype).reshape(-1, *column.shape[1:])
            return np.concatenate([column, more])[order]

        merged = ScannedTicks(*map(both, scanned._fields, scanned))
        return merged, np.concatenate([data, np.frombuffer(texts, np.uint8)])

    def _reject(self, record: int, index: int, value: bytes | None, why: Rejected) -> None:
        self.rejected.append(
            Rejection(
                offset=int(self._run.offsets[record]),
                index=index,
                reason=why.reason,
                detail=why.detail,
                key=self._run.key(record),
                value=value,
                known_at=int(self._known_at[record]),
            )
        )
