"""What was served from warm a moment ago."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.formats.origin import Origin
from registry.formats.row import Row, pack
from serving.stores.newest_served import NewestServed

TOPIC = bytes(16)


def packed(
    offset: int, index: int = 0, partition: int = 0, topic: bytes = TOPIC, schema: int = 1
) -> bytes:
    return pack(Row(schema, -offset, 0, 0, Origin(topic, partition, offset, index), b"", ()))


OFFSETS = st.integers(0, 2**63 - 1)
INDEXES = st.integers(0, 2**31 - 1)


@given(st.tuples(OFFSETS, INDEXES), st.tuples(OFFSETS, INDEXES))
def test_rows_of_one_partition_are_compared_as_ticks_are(
    served: tuple[int, int], hot: tuple[int, int]
) -> None:
    newest = NewestServed()
    newest.note(b"a", packed(*served))
    assert newest.is_older(b"a", packed(*hot)) == (hot < served)
    assert not newest.is_older(b"b", packed(*hot))


@pytest.mark.parametrize(("served", "hot"), [(1, 2), (2, 2), (2, 1), (256, 255)])
def test_of_rows_of_one_tick_the_one_in_the_newer_row_schema_is_newer(
    served: int, hot: int
) -> None:
    newest = NewestServed()
    newest.note(b"a", packed(5, schema=served))
    assert newest.is_older(b"a", packed(5, schema=hot)) == (hot < served)
    assert not newest.is_older(b"a", packed(6, schema=hot))


@pytest.mark.parametrize("other", [packed(9, partition=1), packed(9, topic=b"t" * 16)])
def test_rows_of_two_partitions_cannot_be_compared(other: bytes) -> None:
    newest = NewestServed()
    newest.note(b"a", packed(5))
    assert newest.is_older(b"a", other)


def test_it_is_forgotten_after_a_while_and_no_sooner() -> None:
    newest = NewestServed(seconds=1.5)
    newest.forget(100.0)
    newest.note(b"a", packed(5))
    for now in (101.4, 101.6, 102.9):
        newest.forget(now)
        assert newest.is_older(b"a", packed(4))
        assert not newest.has_none_of([b"b", b"a"])
        assert newest.has_none_of([b"b"])
    newest.forget(103.2)
    assert not newest.is_older(b"a", packed(4))
    assert newest.has_none_of([b"a"])
    newest.note(b"a", packed(5))
    newest.forget(200.0)
    assert newest.has_none_of([b"a"])


def test_it_is_bounded() -> None:
    newest = NewestServed(most=2)
    for name in (b"a", b"b", b"c"):
        newest.note(name, packed(5))
    assert [newest.is_older(name, packed(4)) for name in (b"a", b"b", b"c")] == [True, True, False]


def test_what_is_remembered_is_brought_up_to_date_when_there_is_no_room() -> None:
    newest = NewestServed(seconds=1.5, most=1)
    newest.note(b"old", packed(5))
    newest.forget(2.0)
    newest.note(b"young", packed(5))
    for name in (b"old", b"young"):
        newest.note(name, packed(7))
        assert newest.is_older(name, packed(6))
