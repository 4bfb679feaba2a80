"""The system user that PostgreSQL runs as when root starts it, and what that user can reach."""

from __future__ import annotations

import pwd
import subprocess
from collections.abc import Iterable
from pathlib import Path

from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random

from tickwell.errors import TickwellError, one_line
from tickwell.up.process import Account

FIRST_OUT_OF_REACH = """
for path do
    test -x "$path" || { printf %s "$path"; exit 0; }
done
"""
"""A shell script that prints the first of its arguments that whoever runs it cannot pass or run."""


def ensure_account(name: str) -> Account:
    """The account of a system user, which is made if it does not exist.

    Raises `TickwellError` where it can not be made.
    """
    try:
        return _made(name)
    except FileNotFoundError:
        why = "there is no useradd"
    except subprocess.CalledProcessError as error:
        why = one_line(error.stderr)
    raise TickwellError(
        f"PostgreSQL does not run as root, and its user {name} cannot be made ({why}): make it, "
        "or name a server by TICKWELL_POSTGRES"
    )


@retry(
    # another `up` may make the same user in this moment, which holds the lock on the list of users
    retry=retry_if_exception_type(subprocess.CalledProcessError),
    stop=stop_after_attempt(3),
    wait=wait_random(0.1, 0.5),
    reraise=True,
)
def _made(name: str) -> Account:
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        command = ["useradd", "--system", "--user-group", "--no-create-home", name]
        subprocess.run(command, check=True, capture_output=True, text=True)
        user = pwd.getpwnam(name)
    return Account(user.pw_uid, user.pw_gid)


def out_of_reach(account: Account, paths: Iterable[Path]) -> Path | None:
    """The first of `paths`, or of the folders above them, that an account cannot pass or run.

    It is tried, and not concluded from modes: access lists and mounts have a say too.
    """
    wanted = [part for path in paths for part in (*reversed(path.parents), path)]
    tried = subprocess.run(
        ["/bin/sh", "-c", FIRST_OUT_OF_REACH, "-", *map(str, dict.fromkeys(wanted))],
        check=True,
        capture_output=True,
        user=account.uid,
        group=account.gid,
        extra_groups=[],
        cwd="/",
    )
    return Path(tried.stdout.decode(errors="surrogateescape")) if tried.stdout else None
