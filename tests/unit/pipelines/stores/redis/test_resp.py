"""Commands as compiled code writes them are those that redis-py writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st
from redis.connection import Connection

from pipelines.stores.redis.resp import Arguments, Texts, packed
from registry.formats.redis_keys import chunk_field

texts = st.lists(st.binary(max_size=150), max_size=12)
names = st.lists(st.text(max_size=12), min_size=1, max_size=12)


def joined(values: Sequence[bytes]) -> Texts:
    return Texts.of(b"".join(values), np.cumsum([0, *map(len, values)], dtype=np.int64))


def as_redis_py_writes(*arguments: Any) -> bytes:
    return b"".join(Connection().pack_command(*arguments))


@given(texts, st.integers(0, 2**63 - 1))
def test_texts_and_numbers(values: list[bytes], number: int) -> None:
    command = Arguments("HMGET", "tw:3:ключ", number)
    command.texts(joined(values))
    assert b"".join(packed((command,))) == as_redis_py_writes("HMGET", "tw:3:ключ", number, *values)


@given(st.binary(max_size=30), texts)
def test_texts_with_a_prefix(prefix: bytes, values: list[bytes]) -> None:
    command = Arguments("MGET")
    command.texts(joined(values), prefix)
    expected = [prefix + value for value in values]
    assert b"".join(packed((command,))) == as_redis_py_writes("MGET", *expected)


@given(texts.filter(bool), st.data())
def test_some_of_texts(values: list[bytes], data: st.DataObject) -> None:
    which = data.draw(st.lists(st.integers(0, len(values) - 1), max_size=12))
    command = Arguments("MGET")
    command.texts(joined(values).only(np.array(which, np.int64)))
    expected = [values[i] for i in which]
    assert b"".join(packed((command,))) == as_redis_py_writes("MGET", *expected)


@given(st.lists(st.binary(min_size=5, max_size=5), max_size=12), st.data())
def test_rows_of_a_matrix(values: list[bytes], data: st.DataObject) -> None:
    begin = data.draw(st.integers(0, len(values)))
    matrix = np.frombuffer(b"".join(values), np.uint8).reshape(len(values), 5)
    command = Arguments("EVALSHA")
    command.rows(matrix[begin:])
    assert b"".join(packed((command,))) == as_redis_py_writes("EVALSHA", *values[begin:])


@given(st.lists(st.tuples(st.binary(max_size=9), st.binary(max_size=150)), max_size=12), st.data())
def test_pairs(pairs: list[tuple[bytes, bytes]], data: st.DataObject) -> None:
    size = data.draw(st.integers(0, 100))
    heads = [data.draw(st.binary(min_size=size, max_size=size)) for _ in pairs]
    command = Arguments("HSET", "key")
    command.pairs(
        joined([name for name, _ in pairs]),
        np.frombuffer(b"".join(heads), np.uint8).reshape(len(pairs), size).copy(),
        joined([value for _, value in pairs]),
    )
    expected = [x for (name, value), h in zip(pairs, heads, strict=True) for x in (name, h + value)]
    assert b"".join(packed((command,))) == as_redis_py_writes("HSET", "key", *expected)


@given(names, st.data())
def test_chunks(entities: list[str], data: st.DataObject) -> None:
    of = data.draw(st.lists(st.integers(0, len(entities) - 1), max_size=12))
    blocks = [data.draw(st.integers(0, 2**32)) for _ in of]
    values = [data.draw(st.binary(max_size=150)) for _ in of]
    fields = [chunk_field(entities[i], block) for i, block in zip(of, blocks, strict=True)]
    whose = joined([name.encode() for name in entities])
    columns = np.array(of, np.int64), np.array(blocks, np.int64)
    command = Arguments("HSET", "key")
    command.chunks(whose, *columns, joined(values))
    command.chunk_names(whose, *columns)
    expected = [x for pair in zip(fields, values, strict=True) for x in pair]
    assert b"".join(packed((command,))) == as_redis_py_writes("HSET", "key", *expected, *fields)


@given(texts, st.data())
def test_a_part_of_texts(values: list[bytes], data: st.DataObject) -> None:
    begin = data.draw(st.integers(0, len(values)))
    end = data.draw(st.integers(begin, len(values)))
    command = Arguments()
    command.texts(joined(values).part(slice(begin, end)))
    expected = Arguments()
    expected.add(*values[begin:end])
    assert (command.count, command.data) == (expected.count, expected.data)


@example([[b"x" * 3000], [b"y" * 3000, b"z" * 9000]])
@given(st.lists(st.lists(st.binary(max_size=3000), max_size=4), max_size=8))
def test_arguments_that_take_more_than_the_first_buffer(pieces: list[list[bytes]]) -> None:
    command = Arguments("SADD")
    for piece in pieces:
        command.add(*piece)
        command.texts(joined(piece))
    expected = [value for piece in pieces for value in (*piece, *piece)]
    assert b"".join(packed((command,))) == as_redis_py_writes("SADD", *expected)
