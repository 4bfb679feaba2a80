"""A run's messages to columns of ticks.

One compiled pass (`ticks.json_scanner`) takes what nearly all producers send. Each message that it
leaves goes to `ticks.reference_decoder`, which is the definition. So the result of a tick never
depends on the other ticks of its run, nor on which of the two decoders took it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipelines.kafka.run import Run
from pipelines.runtime.array_types import Bytes, Int64s
from pipelines.ticks.columns import Rejection, Ticks
from pipelines.ticks.event_time import LATEST
from pipelines.ticks.json_scanner import scan
from pipelines.ticks.reference_decoder import Rejected, Tick, judge, split
from pipelines.ticks.scanned_columns import Layout, ScannedTicks
from registry.definitions import Source

NO_TIMESTAMP = -1
"""Kafka's timestamp of a record that has none."""


class Decoder:
    """Decodes the runs of one source. It keeps no state."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._layout = Layout.of(source)

    def decode(self, run: Run) -> Ticks:
        """The ticks of a run, in order, and what decoding rejects of it."""
        # producers may set any timestamp, and nanoseconds have 64 bits
        known_at = np.clip(run.timestamps, NO_TIMESTAMP, LATEST // 10**6) * 10**6
        scanned = scan(run, self._layout, known_at)
        judged = _Judged(run, self.source, known_at)
        for record in scanned.left.tolist():
            judged.judge(record)
        found, data = scanned.ticks, run.data
        if judged.ticks:
            found, data = judged.merged(scanned.ticks)
        return Ticks(
            run=run,
            source=self.source,
            data=data,
            keys=found.keys,
            raw=found.raw,
            record=found.record,
            offset=run.offsets[found.record],
            index=found.index_in_message,
            tick_time=found.tick_time,
            seq=found.seq,
            op=found.op,
            fields=found.fields,
            known_at=known_at[found.record],
            rejected=judged.rejected,
        )


class _Judged:
    """The ticks and rejections of the messages of a run that are decoded one at a time."""

    def __init__(self, run: Run, source: Source, known_at: Int64s) -> None:
        self._run = run
        self._source = source
        self._known_at = known_at
        self.ticks: list[tuple[int, int, bytes, Tick]] = []
        """Record, index in its message, original bytes, and the tick that they are."""
        self.rejected: list[Rejection] = []

    def judge(self, record: int) -> None:
        """Judge each tick of the message of a record."""
        message = self._run.value(record)
        key, known_at = self._run.key(record), int(self._known_at[record])
        try:
            ticks = list(split(message, key))
        except Rejected as rejected:
            self._reject(record, 0, rejected, key, message)
            return
        for index, raw in ticks:
            try:
                self.ticks.append((record, index, raw, judge(raw, self._source, key, known_at)))
            except Rejected as rejected:
                self._reject(record, index, rejected, key, raw)

    def merged(self, scanned: ScannedTicks) -> tuple[ScannedTicks, Bytes]:
        """These ticks among the scanned ones, in the order of the log, and the bytes of both.

        The texts of these ticks are written behind the run's own bytes.
        """
        texts, behind = bytearray(), len(self._run.data)

        def written(text: bytes) -> tuple[int, int]:
            nonlocal texts
            start = behind + len(texts)
            texts += text
            return start, start + len(text)

        judged: dict[str, list[Any]] = {
            "record": [record for record, *_ in self.ticks],
            "index_in_message": [index for _, index, *_ in self.ticks],
            "keys": [[written(text.encode()) for text in tick.key] for *_, tick in self.ticks],
            "raw": [written(original) for _, _, original, _ in self.ticks],
            "tick_time": [tick.tick_time for *_, tick in self.ticks],
            "seq": [tick.seq for *_, tick in self.ticks],
            "op": [tick.op for *_, tick in self.ticks],
            "fields": [tick.fields for *_, tick in self.ticks],
        }
        # a message is scanned or judged as a whole, so the order within each stays as it is
        order = np.argsort(np.concatenate([scanned.record, judged["record"]]), kind="stable")

        def both(name: str, column: Any) -> Any:
            more = np.array(judged[name], column.dtype).reshape(-1, *column.shape[1:])
            return np.concatenate([column, more])[order]

        merged = ScannedTicks(*map(both, scanned._fields, scanned))
        return merged, np.concatenate([self._run.data, np.frombuffer(texts, np.uint8)])

    def _reject(
        self, record: int, index: int, why: Rejected, key: bytes | None, raw: bytes | None
    ) -> None:
        self.rejected.append(
            Rejection(
                offset=int(self._run.offsets[record]),
                index=index,
                reason=why.reason,
                detail=why.detail,
                key=key,
                value=raw,
                known_at=int(self._known_at[record]),
            )
        )
