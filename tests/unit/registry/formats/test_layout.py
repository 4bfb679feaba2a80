"""The layouts, as struct, numpy and Lua know them, and the bytes that are stored already."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.formats.layout import Field, Layout, lua_constants
from registry.formats.origin import ORIGIN, Origin
from registry.formats.row import HEADER, Row, pack, row_layout
from registry.formats.state import CLOSED_BYTES, IDENTITY, STATE_HEADER, tick_layout

TOPIC_ID = bytes(range(16))
ID_HEX = "000102030405060708090a0b0c0d0e0f"

VALUES = {
    "u1": st.integers(0, 2**8 - 1),
    "u4": st.integers(0, 2**32 - 1),
    "i4": st.integers(-(2**31), 2**31 - 1),
    "i8": st.integers(-(2**63), 2**63 - 1),
    "f8": st.floats(),
}


def value_of(field: Field) -> st.SearchStrategy[Any]:
    if field.kind[0] == "V":
        size = int(field.kind[1:])
        return st.binary(min_size=size, max_size=size)
    one, many = VALUES[field.kind], field.many
    return one if many is None else st.lists(one, min_size=many, max_size=many)


def arguments(field: Field, value: Any) -> list[Any]:
    """A field's value as arguments of `struct`."""
    if field.many is None:
        return [value]
    return [bytes(value)] if field.kind == "u1" else value


@given(st.data())
@pytest.mark.parametrize(
    "layout", [ORIGIN, HEADER, row_layout(0), row_layout(5), STATE_HEADER, tick_layout(2)]
)
def test_struct_and_numpy_write_the_same_bytes(layout: Layout, data: st.DataObject) -> None:
    values = [data.draw(value_of(field)) for field in layout.fields]
    column = np.zeros(1, layout.dtype)
    packed: list[Any] = []
    for field, value in zip(layout.fields, values, strict=True):
        column[field.name] = np.void(value) if field.kind[0] == "V" else value
        packed += arguments(field, value)
    assert layout.struct.pack(*packed) == column.tobytes()
    assert layout.size == layout.dtype.itemsize


def test_positions_in_lua_count_from_one() -> None:
    declared = STATE_HEADER.lua("STATE").splitlines()
    assert declared[0] == "local STATE_BYTES = 72"
    assert (
        "local STATE_TOPIC_ID, STATE_TOPIC_ID_END, STATE_TOPIC_ID_TYPE = 1, 16, '>c16'" in declared
    )
    assert "local STATE_COUNT, STATE_COUNT_END, STATE_COUNT_TYPE = 33, 40, '>i8'" in declared
    assert "local STATE_FIELDS, STATE_FIELDS_END, STATE_FIELDS_TYPE = 69, 69, '>I1'" in declared
    assert len(declared) == 1 + len(STATE_HEADER.fields)
    for field in STATE_HEADER.fields:
        first = STATE_HEADER.offset(field.name) + 1
        assert any(
            f"local STATE_{field.name.upper()}," in line and f"= {first}," in line
            for line in declared
        )
    assert lua_constants({"CLOSED": CLOSED_BYTES, "QUOTE": b"'\\1\n"}) == (
        "local CLOSED = '\\255\\255\\255\\255'\nlocal QUOTE = '\\039\\0921\\010'\n"
    )


def test_bytes_that_are_stored_already() -> None:
    """Rows, states and origins were written by earlier versions: no layout may change."""
    origin = Origin(TOPIC_ID, 7, 1002, 1)
    assert origin.pack().hex() == f"{ID_HEX}0000000700000000000003ea00000001"
    assert pack(Row(258, 6, 3, 99, origin, b"\0\2", (1.25, -0.0))).hex() == (
        "01000001020000000000000006000000000000000300000000000000"
        f"63{ID_HEX}0000000700000000000003ea00000001"
        "00023ff40000000000008000000000000000"
    )
    counted = (TOPIC_ID, 7, 1002, 1, 9)
    header = STATE_HEADER.struct.pack(*counted, 2, 1_700_000_000_000_000_000, -1, 3, 0, 2, 3, b"")
    assert header.hex() == (
        f"{ID_HEX}0000000700000000000003ea00000001"
        "0000000000000009000000000000000217979cfe362a0000"
        "ffffffff00000003000000000203" + "0000"
    )
    assert header.startswith(IDENTITY.struct.pack(*counted))
    tick = tick_layout(2).struct.pack(11, -(2**63), 1.5, -0.0)
    assert tick.hex() == "0b000000000000000000000000000080000000000000f83f0000000000000080"
