"""Digests of training sets: of the entity rows, and of the bits of each feature.

A digest does not depend on how the rows were cut into pieces: values, statuses, event times and
versions are digested apart, each as one long array, and the digest is that of their digests.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from serving.history.entity_rows import EntityRows
from serving.history.past_columns import PastColumn

ROWS = ""
"""The name of the digest of the entity rows: no feature has it."""


class Digests:
    """Digests of rows that come a piece after the other."""

    def __init__(self) -> None:
        self._parts: dict[str, dict[str, Any]] = {}

    def add(self, rows: EntityRows, columns: Mapping[str, PastColumn]) -> None:
        """Add the next rows, and their features by the names of their columns."""
        for field in sorted(rows.keys):
            self._texts(ROWS, f"key {field}", rows.keys[field])
        self._numbers(ROWS, "moments", rows.moments)
        for name, column in columns.items():
            has_none = np.isnan(column.values)
            self._numbers(name, "values", np.where(has_none, np.nan, column.values))
            self._numbers(name, "statuses", column.ranks)
            self._numbers(name, "times", column.event_times)
            if column.served is not None:
                numbers = pa.array([*column.served.versions, ""], pa.string())
                which = np.where(column.served.which < 0, len(numbers) - 1, column.served.which)
                self._texts(name, "versions", numbers.take(pa.array(which)))

    def hexadecimal(self) -> dict[str, str]:
        """The digests by the names of columns, that of the rows under `ROWS`."""
        return {
            name: hashlib.sha256(
                b"".join(part.encode() + digest.digest() for part, digest in sorted(parts.items()))
            ).hexdigest()
            for name, parts in self._parts.items()
        }

    def _numbers(self, name: str, part: str, numbers: Any) -> None:
        little = numbers.astype(numbers.dtype.newbyteorder("<"), copy=False)
        self._digest(name, part).update(np.ascontiguousarray(little).view(np.uint8))

    def _texts(self, name: str, part: str, texts: Any) -> None:
        """Lengths and bytes of texts, apart: an array may begin in the middle of its buffers."""
        offsets = np.frombuffer(texts.buffers()[1], np.int32)[texts.offset :][: len(texts) + 1]
        self._numbers(name, f"{part} lengths", np.diff(offsets))
        if len(texts):
            content = texts.buffers()[2]
            used = memoryview(content)[offsets[0] : offsets[-1]] if content is not None else b""
            self._digest(name, f"{part} bytes").update(used)

    def _digest(self, name: str, part: str) -> Any:
        return self._parts.setdefault(name, {}).setdefault(part, hashlib.sha256())
