"""The result of decoding a run: well-formed ticks as columns, and rejections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.kafka.run import Run
from pipelines.runtime.array_types import Bytes, Floats, Int32s, Int64s
from registry.definitions import Source

NO_SEQ = np.iinfo(np.int64).min
"""The value of a tick without `seq` in an int64 column."""

TRADE, RESET, CLOSE = 0, 1, 2
"""Operations of a tick in the column `op`."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """A tick that was not counted, and why: `reason` is one of `pipelines.ticks.rejection_reasons`.

    `index` is the tick's index in an array message (0 for the message itself); `value` the original
    bytes of the tick; `known_at` the record's timestamp, nanoseconds UTC.
    """

    offset: int
    index: int
    reason: str
    detail: str
    key: bytes | None
    value: bytes | None
    known_at: int


@dataclass(frozen=True, slots=True)
class Ticks:
    """The well-formed ticks of a run as columns of length n, and what decoding rejected.

    Texts are in `data`: `keys` (n, key fields, 2) and `raw` (n, 2) are the positions where the
    values of the key fields, and the tick's original bytes, begin and end. `fields` is (n, fields
    of the source); times are int64 nanoseconds UTC; `record` is the index in the run of each tick's
    message. `seq_text` (n, 2) is where the text of a `seq` that is text begins and ends, 0 and 0
    for any other. `passed_over` counts what is not of the source's kind, by its `where`. `rules` is
    the id of the recorded rules that decided, 0 for rules that are not recorded.
    """

    run: Run
    source: Source
    data: Bytes
    keys: Int64s
    raw: Int64s
    record: Int64s
    offset: Int64s
    index: Int32s
    tick_time: Int64s
    seq: Int64s
    op: Bytes
    fields: Floats
    known_at: Int64s
    seq_text: Int64s
    rejected: Sequence[Rejection]
    passed_over: int
    rules: int = 0

    def __len__(self) -> int:
        return len(self.record)

    def original(self, tick: int) -> bytes:
        """The bytes of a tick as its producer wrote them."""
        start, end = self.raw[tick].tolist()
        return self.data[start:end].tobytes()
