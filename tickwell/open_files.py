"""How many files a process may have open, of which each connection is one."""

from __future__ import annotations

import resource
from contextlib import suppress


def allow_most_files() -> None:
    """Let this process, and those that it starts, open as many as the system allows it.

    The limit that most systems set is 1,024, so that programs that use `select` work.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # macOS names no limit, and takes that for none either
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
