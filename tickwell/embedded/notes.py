"""Small files with one thing in them: an identifier, a path, a password.

Some lie where other accounts may write, or could under an earlier version. Reading one follows no
symbolic link and never blocks, as opening a pipe would, and writing one replaces it, so that
nothing planted beforehand is written through.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from tickwell.errors import TickwellError

MOST_BYTES = 16_384
"""The size of the largest note in bytes, which is more than the longest path."""


def read_note(file: Path) -> str | None:
    """The text of a note, None where no such file exists.

    Raises `TickwellError` where it is not a regular file with a line of text.
    """
    refused = TickwellError(f"{file} is not the file that tickwell wrote: restore it")
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        if file.is_symlink():
            raise refused from None
        raise
    with open(descriptor, "rb") as handle:
        regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
        content = handle.read(MOST_BYTES) if regular else b""
    if not regular or b"\0" in content:
        raise refused
    return os.fsdecode(content)


def write_note(file: Path, text: str) -> None:
    """Replace a note as a whole or not at all; only its owner may read it."""
    unfinished = file.with_name(f"{file.name}.unfinished")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "wb") as handle:
        handle.write(os.fsencode(text))
        handle.flush()
        os.fsync(descriptor)
    unfinished.replace(file)
