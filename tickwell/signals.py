"""Signals that stop a command."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from threading import Event, Thread
from typing import Any

STOPPING = (signal.SIGINT, signal.SIGTERM)
"""The signals that stop a command unless others are given."""


def stop_on(
    stop: Event, numbers: Iterable[signal.Signals] = STOPPING, *, once: bool = False
) -> None:
    """Set `stop` at a signal. With `once` the second one raises `KeyboardInterrupt`."""

    def handle(number: int, _: Any) -> None:
        # in a thread: the one that is interrupted may be in `stop.wait`, which holds its lock
        Thread(target=stop.set).start()
        if once:
            signal.signal(number, signal.default_int_handler)

    for number in numbers:
        signal.signal(number, handle)
