"""What says that work is to stop, in this process or in another one."""

from __future__ import annotations

from typing import Protocol


class Stop(Protocol):
    """A `threading.Event`, or one of `multiprocessing`."""

    def is_set(self) -> bool: ...
