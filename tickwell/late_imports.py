"""Imports of a command that runs for long, without the search for garbage."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def late_imports() -> Iterator[None]:
    """Import what a command needs.

    Modules and what they define stay for the life of the process: to look for garbage among them
    takes an eighth of a worker's start, and finds none. Afterwards the collector passes over them.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
