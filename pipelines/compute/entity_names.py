"""Names of entities as bytes one behind the other: a text is made where one is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import overload

import numpy as np

from pipelines.runtime.array_types import Int64s


class EntityNames(Sequence[str]):
    """Names (`registry.formats.redis_keys.entity_id`) in `data`, in UTF-8.

    Name i is what lies between `ends[i]` and `ends[i + 1]`; `ends[0]` is 0.
    """

    def __init__(self, data: bytes, ends: Int64s) -> None:
        self.data = data
        self.ends = ends

    @classmethod
    def of(cls, names: Iterable[str]) -> EntityNames:
        """These names."""
        encoded = [name.encode() for name in names]
        return cls(b"".join(encoded), np.cumsum([0, *map(len, encoded)], dtype=np.int64))

    def __len__(self) -> int:
        return len(self.ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> EntityNames: ...
    def __getitem__(self, index: int | slice) -> str | EntityNames:
        if isinstance(index, slice):
            return EntityNames.of([self[i] for i in range(*index.indices(len(self)))])
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.data[self.ends[index] : self.ends[index + 1]].decode()

    def __iter__(self) -> Iterator[str]:
        return map(bytes.decode, self.encoded())

    def encoded(self) -> list[bytes]:
        """The names as bytes."""
        return [self.data[begin:end] for begin, end in pairwise(self.ends.tolist())]
