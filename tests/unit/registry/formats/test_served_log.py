"""Reading the log of served values back."""

from __future__ import annotations

import logging
import math
import random
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.formats.origin import Origin
from registry.formats.served_log import (
    Served,
    ServedRow,
    ServedValue,
    bits_of,
    encode,
    read_served,
    some_served,
)
from registry.formats.status import Status

ORIGIN = Origin(bytes(range(240, 256)), 3, 2**40, 7)


def served(moment: int, bits: str | None = None) -> Served:
    rows = (
        ServedRow("price", ("A\n\u00fc",), "warm", False, 4, ORIGIN),
        ServedRow("volume", ("A\n\u00fc",), None, True, None, None),
    )
    value = ServedValue("f@1.0.0", {"symbol": "A\n\u00fc"}, Status.LAGGING, "warm", bits, (0, 1))
    return Served(moment, "id", (value,), rows, 3)


def of(*moments: int) -> bytes:
    return b"".join(encode(served(moment)) + b"\n" for moment in moments)


@given(st.floats(allow_nan=False))
def test_a_value_comes_back_to_the_bit(value: float) -> None:
    found = served(1, bits_of(value)).values[0]
    assert found.bits == struct.pack(">d", value).hex()
    assert found.value == value
    assert math.copysign(1, found.value) == math.copysign(1, value)


def test_what_was_written_is_read_from_the_oldest_to_the_newest(tmp_path: Path) -> None:
    assert list(read_served(tmp_path / "nowhere")) == []
    (tmp_path / "1.lock").touch()
    for name, moments in [("1.jsonl", [5, 6]), ("1.jsonl.1", [3, 4]), ("1.jsonl.2", [1, 2])]:
        (tmp_path / name).write_bytes(of(*moments))
    assert list(read_served(tmp_path)) == [served(moment) for moment in range(1, 7)]
    (tmp_path / "2.jsonl").write_bytes(of(0))
    assert {one.moment for one in read_served(tmp_path)} == set(range(7))


@pytest.mark.parametrize("cut", [1, 100, len(of(2)) - 1])
def test_a_line_that_was_cut_is_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, cut: int
) -> None:
    (tmp_path / "1.jsonl").write_bytes(of(1) + of(2)[:-cut] + b"\n\n" + of(3) + of(4)[:-cut])
    whole = [1, 2, 3, 4] if cut == 1 else [1, 3]
    with caplog.at_level(logging.WARNING):
        assert [one.moment for one in read_served(tmp_path)] == whole
    assert ("2 lines were cut" in caplog.text) == (cut != 1)


def test_some_lines_are_neighbours_from_anywhere(tmp_path: Path) -> None:
    """Every line is drawn now and then, but the first of a file where others lie behind it."""
    assert some_served(tmp_path / "nowhere", 3, random.Random(1)) == []
    (tmp_path / "1.jsonl").write_bytes(b"")
    assert some_served(tmp_path, 3, random.Random(1)) == []
    (tmp_path / "1.jsonl").write_bytes(of(*range(10, 20)) + of(20)[:40])
    (tmp_path / "2.jsonl.1").write_bytes(of(*range(30)))
    chance, seen = random.Random(1), set[int]()
    for _ in range(300):
        moments = [one.moment for one in some_served(tmp_path, 3, chance)]
        assert moments == list(range(moments[0], moments[0] + len(moments)))
        assert 1 <= len(moments) <= 3
        seen.update(moments)
    assert seen >= set(range(1, 30))


def test_a_log_of_one_line_is_read(tmp_path: Path) -> None:
    (tmp_path / "1.jsonl").write_bytes(of(7))
    assert [one.moment for one in some_served(tmp_path, 3, random.Random(2))] == [7]
