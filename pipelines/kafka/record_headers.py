"""The headers of one record, read where they lie behind its value.

    headers = number of headers, and for each the length of its name, the name, the length of its
              value (-1 for null), the value

The numbers are zig-zag varints. Few sources need headers, so they are read when they are asked for.
"""

from __future__ import annotations

from pipelines.runtime.array_types import Bytes


def read_headers(data: Bytes, begin: int) -> dict[str, bytes]:
    """The headers that begin at byte offset `begin`, without those that are null.

    Of several of a name it is the last one. A record was found whole before.
    """
    headers, view = {}, data.data
    many, begin = _varint(view, begin)
    for _ in range(many):
        size, begin = _varint(view, begin)
        name = str(view[begin : begin + size], "utf-8", "replace")
        size, begin = _varint(view, begin + size)
        if size >= 0:
            headers[name] = bytes(view[begin : begin + size])
            begin += size
        else:
            headers.pop(name, None)
    return headers


def _varint(view: memoryview, begin: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte: int = view[begin]
        begin += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value >> 1 ^ -(value & 1), begin
        shift += 7
