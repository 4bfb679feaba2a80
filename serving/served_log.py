"""Writes the log of served values (`registry.formats.served_log`), one request in many.

Nothing waits for it: lines go through a bounded queue to a thread, and what does not get in, or
cannot be written, is counted and left out.
"""

from __future__ import annotations

import logging
import os
import queue
import random
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import chain, repeat
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import IO, Any

from registry.formats.served_log import ENDING, Served, encode
from serving.own_files import first_free

logger = logging.getLogger(__name__)

FILE_BYTES, FILES = 16_000_000, 4
"""Bytes of a file, about, and files of a process: the oldest is deleted for a new one."""

WAITING = 100
"""Lines that wait for the thread."""

WARN_SECONDS = 60.0
"""Seconds between two warnings that something was left out."""

CLOSE_SECONDS = 2.0
"""Seconds that the end of a server waits for lines to be written: a disk may hang."""


class ServedLog:
    """The log of one process, about one request in `every`; of none without a directory, or by 0.

    It makes the directory, and its files, with the first line.
    """

    def __init__(
        self,
        directory: Path | None = None,
        every: int = 1_000,
        file_bytes: int = FILE_BYTES,
        draw: random.Random | None = None,
    ) -> None:
        self.requests = 0
        """Requests that were to be noted."""
        self._refused, self._lost = 0, 0  # each is counted in one thread alone
        self._lines: queue.Queue[str | None] = queue.Queue(WAITING)
        self._thread: threading.Thread | None = None
        self._warned_at = -WARN_SECONDS
        self._files: _Files | None = None
        self.is_due: Callable[[], bool] = repeat(False).__next__
        """Whether the request of now is to be noted; to be asked once of each."""
        if directory is not None and every > 0:
            self._files = _Files(directory, file_bytes, self._failed)
            self.is_due = chain.from_iterable(_gaps(every, draw or random.Random())).__next__

    @property
    def dropped(self) -> int:
        """How many of these requests are not in the files."""
        return self._refused + self._lost

    def note(self, served: Callable[[], Served]) -> None:
        """Have what was served written. Raises nothing, whatever `served` does."""
        self.requests += 1
        try:
            line = encode(served()).decode()
        except Exception:  # the answer is given all the same
            self._refused += 1
            logger.exception("what was served could not be noted")
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._write, name="served-log", daemon=True)
            self._thread.start()
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._refused += 1
            self._warn(f"{WAITING} requests wait to be written")

    def close(self) -> None:
        """Write what waits, for as long as `CLOSE_SECONDS`; nothing is written after it."""
        if self._thread is None:
            return
        with suppress(queue.Full):
            self._lines.put(None, timeout=CLOSE_SECONDS)
            self._thread.join(CLOSE_SECONDS)

    def _write(self) -> None:
        """What the thread does."""
        assert self._files is not None
        while (line := self._lines.get()) is not None:
            self._files.write(line)
        self._files.close()

    def _failed(self, why: object) -> None:
        """Count a request that the thread could not write."""
        self._lost += 1
        self._warn(why)

    def _warn(self, why: object) -> None:
        """Say now and then that requests are left out."""
        now = time.monotonic()
        if now - self._warned_at >= WARN_SECONDS:
            self._warned_at = now
            logger.warning(
                "what is served is not logged: %s. %d requests were left out; answers are given "
                "as before",
                *(why, self.dropped),
            )


def _gaps(every: int, draw: random.Random) -> Iterator[Iterable[bool]]:
    """What is said of requests up to one that is noted, again and again.

    How many they are is drawn, as clients may ask in a rhythm. Iterators of the standard library
    say it in a third of the time that a count and a comparison take here.
    """
    while True:
        yield chain(repeat(False, draw.randrange(1, 2 * every) - 1), (True,))


class _Files(RotatingFileHandler):
    """The files of a process in a directory; only this user reads them, as keys and values are in.

    What fails is told, and tried again with the next line.
    """

    def __init__(self, directory: Path, file_bytes: int, failed: Callable[[object], None]) -> None:
        super().__init__(directory / ENDING, maxBytes=file_bytes, backupCount=FILES - 1, delay=True)
        self._directory = directory
        self._failed = failed
        self._lock_file: IO[bytes] | None = None
        self._was_cut = True  # the process before may have been killed while it wrote

    def write(self, line: str) -> None:
        """Write a line."""
        if self._was_cut:  # the disk may have taken a part of the line before
            self._was_cut, line = False, f"\n{line}"
        self.emit(logging.makeLogRecord({"msg": line}))

    def close(self) -> None:
        with suppress(OSError):  # what the disk did not take is counted already
            super().close()
        if self._lock_file is not None:
            self._lock_file.close()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Is called where a line could not be written, with the exception under way."""
        self._was_cut = True
        stream, self.stream = self.stream, None
        if stream is not None:
            with suppress(OSError):
                stream.close()
        self._failed(sys.exception())

    def _open(self) -> Any:
        if self._lock_file is None:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock_file, number = first_free(self._directory)
            self.baseFilename = str(self._directory.absolute() / f"{number}{ENDING}")
        return open(self.baseFilename, "a", encoding="utf-8", opener=_private)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
