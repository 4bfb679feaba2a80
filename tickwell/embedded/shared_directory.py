"""The directory of a machine for clusters and programs that PostgreSQL's account must reach."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tickwell.embedded.system_user import out_of_reach
from tickwell.errors import TickwellError
from tickwell.up.process import Account

ELSEWHERE = Path("/var/lib/tickwell")
"""The directory for clusters and programs that PostgreSQL's account cannot reach where they are."""

PASSABLE = 0o711
"""The mode of directories that belong to root and that the account passes."""


@contextmanager
def locked_directory(elsewhere: Path) -> Iterator[None]:
    """Create `elsewhere` if necessary, and lock it against every other `up` of the machine.

    Root writes below it, so another account must not be able to change what is in it. Raises
    `TickwellError` where one could, and where the directory cannot be created.
    """
    try:
        make_passable(elsewhere)
        handle = os.open(elsewhere, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        raise TickwellError(
            f"{elsewhere} cannot be used ({error.strerror}): name a directory with --data that "
            "everybody may pass, or a server by TICKWELL_POSTGRES"
        ) from None
    try:
        found = os.fstat(handle)
        if found.st_uid != os.geteuid() or found.st_mode & 0o022:
            raise TickwellError(
                f"other accounts can change what is in {elsewhere}: check its contents, then run "
                f"`chown root: {elsewhere} && chmod 711 {elsewhere}`"
            )
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def make_passable(folder: Path) -> bool:
    """Create a folder that everybody may pass; False for one that exists, which stays as it is."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.mkdir()
    except FileExistsError:
        return False
    folder.chmod(PASSABLE)  # the mode that `mkdir` takes is subject to the umask
    return True


def check_reached(path: Path, account: Account) -> None:
    """Raises `TickwellError` unless the account can reach `path`."""
    closed = out_of_reach(account, [path])
    if closed is not None:
        raise TickwellError(
            f"PostgreSQL's user cannot pass {closed} either: permit it to, or name a server by "
            "TICKWELL_POSTGRES"
        )
