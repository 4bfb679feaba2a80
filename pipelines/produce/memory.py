"""How little memory a command keeps that reads large files."""

from __future__ import annotations

import pyarrow as pa

from pipelines.runtime.allocator import give_back_at_once

IO_THREADS = 2
"""Threads of Arrow that read ahead; each keeps memory of its own."""


def keep_little() -> None:
    """Give what is freed back to the system at once, for the rest of the process."""
    give_back_at_once()
    pa.set_memory_pool(pa.system_memory_pool())
    pa.set_io_thread_count(IO_THREADS)
