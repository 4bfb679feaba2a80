"""Memory that the processes of one server share: a page for each, which it alone writes.

What a process has written stays readable when it is killed, also in the middle of a write: a page
has two halves, of which the older one is overwritten, and a checksum tells which are whole. So
nobody locks, and nobody waits for a process that hangs.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
import zlib

HALF_BYTES = 131_072
"""Bytes of half a page. Memory that was never written is not taken."""

HEAD = struct.Struct("<QII")
"""What a half begins with: the number of the write, the length of its content, a checksum."""

PAGE_BYTES = 2 * HALF_BYTES
CONTENT_BYTES = HALF_BYTES - HEAD.size
"""The most that a page can hold, in bytes."""


class SharedPages:
    """Pages in the memory of a file that its processes have inherited."""

    def __init__(self, file: int, pages: int) -> None:
        """`file` is the descriptor of a file for so many pages."""
        self.file = file
        self.pages = pages
        self._memory = mmap.mmap(file, pages * PAGE_BYTES)

    @classmethod
    def create(cls, pages: int) -> SharedPages:
        """New, empty pages."""
        if hasattr(os, "memfd_create"):
            file = os.memfd_create("tickwell-server")
        else:
            with tempfile.TemporaryFile() as named:
                file = os.dup(named.fileno())
        os.ftruncate(file, pages * PAGE_BYTES)
        return cls(file, pages)

    def write(self, page: int, content: bytes) -> None:
        """Replace what is in a page, of which the caller is the only writer.

        Raises `ValueError` for what is longer than `CONTENT_BYTES`.
        """
        if len(content) > CONTENT_BYTES:
            raise ValueError(f"{len(content)} bytes are more than a page holds, {CONTENT_BYTES}")
        number = 1 + self.written(page)
        start = page * PAGE_BYTES + number % 2 * HALF_BYTES
        self._memory[start + HEAD.size : start + HEAD.size + len(content)] = content
        HEAD.pack_into(self._memory, start, number, len(content), _checksum(number, content))

    def read(self, page: int) -> bytes | None:
        """What was written last, None before the first time."""
        return max(self._halves(page), default=(0, None), key=lambda half: half[0])[1]

    def written(self, page: int) -> int:
        """How often the page was written."""
        return max((number for number, _ in self._halves(page)), default=0)

    def close(self) -> None:
        self._memory.close()
        os.close(self.file)

    def _halves(self, page: int) -> list[tuple[int, bytes]]:
        """The number and the content of each half that is whole."""
        found = []
        for start in (page * PAGE_BYTES, page * PAGE_BYTES + HALF_BYTES):
            number, length, checksum = HEAD.unpack_from(self._memory, start)
            if number and length <= CONTENT_BYTES:
                content = self._memory[start + HEAD.size : start + HEAD.size + length]
                if checksum == _checksum(number, content):
                    found.append((number, content))
        return found


def _checksum(number: int, content: bytes) -> int:
    return zlib.crc32(content, number & 0xFFFFFFFF)
