"""A log in which a line that repeats itself is written once in a while, with how often it came.

While a broker is away aiokafka says so at every attempt, 55 lines a second, and what else a worker
has to say is lost among them.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

SECONDS = 10.0
"""Seconds in which a line that has been written is only counted."""

LINES = 200
"""Different lines that are remembered; of one more the oldest is forgotten, once it is counted."""

Key = tuple[str, int, str, str]


@dataclass(slots=True)
class _Written:
    """A record that was written, and how often the same has come since, until `until`."""

    record: logging.LogRecord
    begun: float
    times: int = 0


class CountedLines(logging.StreamHandler[TextIO]):
    """Writes a record at once if the same was not written in the last seconds, else counts it.

    Records are the same that have the same logger, level, text and exception. What was counted is
    written with the next record that comes after these seconds, whichever it is, and when the log
    is closed.
    """

    def __init__(
        self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(stream)
        self._clock = clock
        self._written: OrderedDict[Key, _Written] = OrderedDict()

    def emit(self, record: logging.LogRecord) -> None:
        now = self._clock()
        self._tell(now - SECONDS)
        error = record.exc_info[1] if record.exc_info else None
        try:
            key = record.name, record.levelno, record.getMessage(), repr(error)
        except Exception:
            super().emit(record)  # which reports that the text does not take the arguments
            return
        same = self._written.get(key)
        if same is not None:
            same.times += 1
            return
        super().emit(record)
        self._written[key] = _Written(record, now)
        if len(self._written) > LINES:
            self._forget(next(iter(self._written)), now)

    def close(self) -> None:
        """Write what was counted."""
        self._tell(self._clock())
        super().close()

    def _tell(self, begun_until: float) -> None:
        """Forget what was written first until then, and write how often it came since."""
        now = self._clock()
        while self._written:
            key, oldest = next(iter(self._written.items()))
            if oldest.begun > begun_until:
                return
            self._forget(key, now)

    def _forget(self, key: Key, now: float) -> None:
        same = self._written.pop(key)
        if not same.times:
            return
        record = logging.makeLogRecord(same.record.__dict__)
        record.msg = f"{key[2]} ({same.times} more times in {now - same.begun:.0f} s)"
        record.args = record.exc_info = record.exc_text = None
        record.created = time.time()
        super().emit(record)
