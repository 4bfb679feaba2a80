"""Texts with a prefix, and some of them, are those that Python makes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipelines.stores.redis.key_texts import prefixed, rows_of, some
from pipelines.stores.redis.resp import Texts

texts = st.lists(st.binary(max_size=30), max_size=12)


def joined(values: Sequence[bytes]) -> Texts:
    return Texts.of(b"".join(values), np.cumsum([0, *map(len, values)], dtype=np.int64))


def separate(found: Texts) -> list[bytes]:
    return [
        found.data[begin:end].tobytes()
        for begin, end in zip(found.ends[:-1], found.ends[1:], strict=True)
    ]


@given(st.binary(max_size=30), texts)
def test_a_prefix(prefix: bytes, values: list[bytes]) -> None:
    assert separate(prefixed(prefix, joined(values))) == [prefix + value for value in values]


@given(texts.filter(bool), st.data())
def test_some(values: list[bytes], data: st.DataObject) -> None:
    which = data.draw(st.lists(st.integers(0, len(values) - 1), max_size=12))
    found = some(joined(values), np.array(which, np.int64))
    assert separate(found) == [values[i] for i in which]


@given(st.lists(st.binary(min_size=5, max_size=5), min_size=1, max_size=12))
def test_rows(values: list[bytes]) -> None:
    matrix = np.frombuffer(b"".join(values), np.uint8).reshape(len(values), 5)
    assert separate(rows_of(matrix)) == values
    assert separate(rows_of(matrix[:, ::-1][:, ::-1][::2])) == values[::2]
