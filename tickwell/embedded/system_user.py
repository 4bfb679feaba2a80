"""The system account that PostgreSQL runs as when root starts it, and what it can reach."""

from __future__ import annotations

import pwd
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random

from tickwell.errors import TickwellError, one_line
from tickwell.up.process import Account

FIRST_OUT_OF_REACH = """
for path do
    test -x "$path" || { printf %s "$path"; exit 0; }
done
"""
"""A shell script that prints the first of its arguments that its account cannot pass or run."""


def ensure_account(name: str) -> Account:
    """The account of a system user, which is created if it does not exist.

    Raises `TickwellError` where it cannot be created.
    """
    try:
        return _ensure(name)
    except FileNotFoundError:
        why = "there is no useradd"
    except subprocess.CalledProcessError as error:
        why = one_line(error.stderr)
    raise TickwellError(
        f"PostgreSQL does not run as root, and its user {name} cannot be created ({why}): create "
        "it, or name a server by TICKWELL_POSTGRES"
    )


@retry(
    # another `up` may be creating the same user and hold the lock on the list of users
    retry=retry_if_exception_type(subprocess.CalledProcessError),
    stop=stop_after_attempt(3),
    wait=wait_random(0.1, 0.5),
    reraise=True,
)
def _ensure(name: str) -> Account:
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        command = ["useradd", "--system", "--user-group", "--no-create-home", name]
        subprocess.run(command, check=True, capture_output=True, text=True)
        user = pwd.getpwnam(name)
    return Account(user.pw_uid, user.pw_gid)


def run_as(
    account: Account | None,
    command: Sequence[str],
    *,
    cwd: Path = Path("/"),
    stdin: int = subprocess.DEVNULL,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end as an account, with that account's group and no others.

    It begins in `cwd`, also where the account cannot pass the folders above that. It has a session
    of its own, so that Ctrl-C does not reach it. Without an account it runs as the caller.
    """
    return subprocess.run(
        command,
        stdin=stdin,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
        cwd=cwd,
        start_new_session=True,
        check=False,
    )


def out_of_reach(account: Account, paths: Iterable[Path]) -> Path | None:
    """The first of `paths`, or of the folders above them, that an account cannot pass or run.

    The account tries it, because access lists and mounts decide about it too, beside modes.
    """
    wanted = [part for path in paths for part in (*reversed(path.parents), path)]
    script = ["/bin/sh", "-c", FIRST_OUT_OF_REACH, "-"]
    tried = run_as(account, [*script, *map(str, dict.fromkeys(wanted))])
    tried.check_returncode()
    return Path(tried.stdout) if tried.stdout else None
