"""Files in a directory that several processes write to: each has a number, and files of its own."""

from __future__ import annotations

import fcntl
import os
from itertools import count
from pathlib import Path
from typing import IO


def first_free(directory: Path) -> tuple[IO[bytes], str]:
    """The lock of the first number that no process has, held while it is open, and the number.

    The next process that starts takes up a number again, and the files with it. Raises OSError.
    """
    for number in count(1):
        lock = (directory / f"{number}.lock").open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        os.set_inheritable(lock.fileno(), False)
        return lock, str(number)
    raise AssertionError("numbers do not end")
