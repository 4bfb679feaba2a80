"""The memory allocator of an embedded Valkey: finding and freeing memory is half of what it does.

Valkey's own builds, and those of Debian, have jemalloc; the build that is embedded here has the C
library's `malloc`. Where the system has jemalloc or mimalloc, the dynamic loader puts it in front.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from ctypes.util import find_library

import psutil

FAST = ("jemalloc", "mimalloc")
C_LIBRARY = "libc"


def preloaded(find: Callable[[str], str | None] = find_library) -> dict[str, str]:
    """The variables with which a process takes its memory from a fast allocator, if there is one.

    `find` names the file of a library of the system, None where it has none.
    """
    if sys.platform != "linux":
        return {}
    library = next(filter(None, map(find, FAST)), None)
    if library is None:
        return {}
    others = os.environ.get("LD_PRELOAD", "").split()
    return {"LD_PRELOAD": " ".join([library, *others])}


def allocator_of(pid: int) -> str:
    """The allocator that a running process has loaded: one of `FAST`, else `C_LIBRARY`.

    Raises `psutil.Error` where the process is gone, or is another user's.
    """
    files = [mapped.path.rsplit("/", 1)[-1] for mapped in psutil.Process(pid).memory_maps()]
    for name in FAST:
        if any(file.startswith(f"lib{name}") for file in files):
            return name
    return C_LIBRARY
