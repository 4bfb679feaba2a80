"""Runs cut so that none is too large for what comes after."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.kafka.run import Run
from pipelines.ticks.message_limits import MAX_ARRAY_TICKS
from pipelines.ticks.run_limits import MAX_TICKS, bounded
from registry.definitions import Source
from tests.support.logs import run_of_columns

PLAIN = Source("price", "ticks.price", ("symbol",), ())
WITH_ITEMS = msgspec.structs.replace(PLAIN, items="data")
AVRO = msgspec.structs.replace(PLAIN, format="avro")
PROTOBUF = msgspec.structs.replace(PLAIN, format="protobuf")
Size = Callable[[bytes], tuple[int, int]]
"""Bytes and elements that a message is counted as."""


def commas(message: bytes) -> int:
    return message.count(b",") + 1


SIZES: list[tuple[list[Source], Size]] = [
    ([PLAIN], lambda m: (len(m), commas(m) if m.strip().startswith(b"[") else 1)),
    ([WITH_ITEMS], lambda m: (len(m), commas(m))),
    ([PLAIN, WITH_ITEMS], lambda m: (len(m), commas(m))),
    ([msgspec.structs.replace(PLAIN, format="json-schema")], lambda m: (len(m), commas(m))),
    ([AVRO], lambda m: (16 * len(m), 1 + len(m.lstrip()))),
    ([PLAIN, PROTOBUF], lambda m: (16 * len(m), commas(m) if m.strip().startswith(b"[") else 1)),
    (
        [PLAIN, msgspec.structs.replace(PROTOBUF, items="data")],
        lambda m: (16 * len(m), 1 + len(m.lstrip())),
    ),
]
MESSAGES = [b"", b"{}", b"[{},{},{}]", b" [1,2]", b"{,,,,,,,,}", b"\0\0\0\0\1[,]"]


def held(run: Run) -> list[bytes]:
    return [run.value(record) or b"" for record in range(len(run))]


def run_of(messages: list[bytes]) -> Run:
    n = len(messages)
    return run_of_columns(0, (3, 3 + n), range(3, 3 + n), range(n), [b"k"] * n, messages)


@given(
    st.sampled_from(SIZES),
    st.lists(st.sampled_from(MESSAGES), max_size=40),
    st.integers(1, 60),
    st.integers(1, 8),
)
def test_a_run_is_cut_where_it_is_too_large(
    counted: tuple[list[Source], Size], messages: list[bytes], most_bytes: int, most_ticks: int
) -> None:
    sources, size = counted
    runs = bounded(run_of(messages), sources, most_bytes, most_ticks)
    assert [message for run in runs for message in held(run)] == messages
    bounds = [(run.base_offset, run.next_offset) for run in runs]
    assert [start for start, _ in bounds] == [3, *(end for _, end in bounds[:-1])]
    assert bounds[-1][1] == 3 + len(messages)

    def total(messages: list[bytes]) -> tuple[int, int]:
        sizes = [size(message) for message in messages]
        return sum(one for one, _ in sizes), sum(ticks for _, ticks in sizes)

    for one, after in pairwise(map(held, runs)):  # as much as may be; more only of one message
        assert len(one) == 1 or all(map(int.__le__, total(one), (most_bytes, most_ticks)))
        with_next = total([*one, after[0]])
        assert with_next[0] > most_bytes or with_next[1] > most_ticks


@pytest.mark.parametrize("source", [PLAIN, WITH_ITEMS])
def test_a_run_never_has_more_elements_than_memory_is_for(source: Source) -> None:
    elements = b"[" + b",".join([b"{}"] * MAX_ARRAY_TICKS) + b"]"
    message = elements if source is PLAIN else b'{"data":' + elements + b"}"
    runs = bounded(run_of([message] * 40), [source])
    assert max(len(run) for run in runs) * MAX_ARRAY_TICKS <= MAX_TICKS
    assert sum(map(len, runs)) == 40


def test_an_avro_value_that_is_an_array() -> None:
    """Its elements are not marked: any byte may be one."""
    elements = b"\0\0\0\0\1" + bytes(MAX_ARRAY_TICKS)
    runs = bounded(run_of([elements] * 40), [AVRO])
    assert max(len(run) for run in runs) * MAX_ARRAY_TICKS <= MAX_TICKS
    assert sum(map(len, runs)) == 40
