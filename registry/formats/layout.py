"""A layout of bytes, declared once: `struct`, numpy and Lua read and write it by this declaration.

A field's kind is its numpy type without the byte order: `i8` is a signed integer of eight bytes,
and `V16` are sixteen bytes without a meaning to these libraries.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np

STRUCT = {"u1": "B", "u4": "I", "i4": "i", "i8": "q", "f8": "d"}
"""The codes of Python's `struct`, by kind."""

LUA = {"u1": "I1", "u4": "I4", "i4": "i4", "i8": "i8", "f8": "d"}
"""The codes of the library `struct` in Redis' Lua, by kind."""


class Field(NamedTuple):
    """A field of a layout: one value of its kind, or an array of `many`."""

    name: str
    kind: str
    many: int | None = None


class Layout:
    """Fields one after the other, without gaps, all in one byte order.

    `struct` takes and gives the values in the order of the fields. An array of `u1` is a byte
    string to it; of other arrays each value is an argument of its own.
    """

    def __init__(self, *fields: Field, order: Literal["<", ">"] = ">") -> None:
        self.fields = fields
        self.order = order
        self.struct = struct.Struct(order + "".join(map(_struct_code, fields)))
        self.dtype: np.dtype[np.void] = np.dtype(
            [(name, order + kind, () if many is None else (many,)) for name, kind, many in fields]
        )

    @property
    def size(self) -> int:
        """Bytes of all fields together."""
        return self.struct.size

    def offset(self, name: str) -> int:
        """Bytes before a field."""
        assert self.dtype.fields is not None
        return self.dtype.fields[name][1]

    def lua(self, prefix: str) -> str:
        """Declarations of local variables for a script.

        `<PREFIX>_BYTES` is the size. Of each field `<PREFIX>_<FIELD>` is the position of its first
        byte, counted from 1 as Lua does, `…_END` that of its last one, and `…_TYPE` the format of
        its value for `struct.pack` and `struct.unpack`.
        """
        declared = [f"local {prefix}_BYTES = {self.size}"]
        for field in self.fields:
            first = self.offset(field.name) + 1
            last = first + struct.calcsize(self.order + _struct_code(field)) - 1
            kind = f"{self.order}{LUA.get(field.kind) or 'c' + field.kind[1:]}"
            name = f"{prefix}_{field.name.upper()}"
            declared.append(f"local {name}, {name}_END, {name}_TYPE = {first}, {last}, '{kind}'")
        return "\n".join(declared) + "\n"


def lua_constants(constants: Mapping[str, bytes]) -> str:
    """Declarations of local variables for a script that hold these bytes."""
    return "".join(f"local {name} = '{_escaped(value)}'\n" for name, value in constants.items())


def _escaped(value: bytes) -> str:
    return re.sub(rb"\W", lambda found: b"\\%03d" % found[0][0], value).decode("ascii")


def _struct_code(field: Field) -> str:
    if field.kind[0] == "V":
        return f"{field.kind[1:]}s"
    if field.many is None:
        return STRUCT[field.kind]
    return f"{field.many}{'s' if field.kind == 'u1' else STRUCT[field.kind]}"
