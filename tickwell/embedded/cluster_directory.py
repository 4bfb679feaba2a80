"""The directory of PostgreSQL's cluster: with the other services' data, or where it can be reached.

Started by root, PostgreSQL runs as a system account, which may not be able to pass the folders
above the data: a home of mode 0700 is closed to it. The modes of these folders stay as they are.
The cluster gets a directory of its own below `ELSEWHERE`, named by an identifier that is noted in
the data directory, so that the cluster is found again when the data directory is moved. The
cluster's directory notes the data directory that it belongs to, so that a copy of the data
directory does not take the cluster for its own.

Programs can run as that account: a superuser of the database can start them. So the account owns
`cluster` and nothing else. The directory around it, with the password and the notes, belongs to
root; in a directory of the account, it could plant links through which root would write elsewhere.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

from tickwell.embedded.notes import read_note, write_note
from tickwell.embedded.shared_directory import (
    PASSABLE,
    check_reached,
    locked_directory,
    make_passable,
)
from tickwell.embedded.system_user import out_of_reach, run_as
from tickwell.errors import TickwellError, one_line
from tickwell.up.process import Account

CLUSTER = "cluster"
"""The name of the cluster in its directory."""

IDENTIFIER = "cluster-id"
"""The name of the file in a data directory that says which directory elsewhere is its."""

BELONGS_TO = "data-directory"
"""The name of the file in a directory elsewhere that says which data directory it belongs to."""

Say = Callable[[str], None]


def cluster_directory(data: Path, account: Account | None, elsewhere: Path, say: Say) -> Path:
    """The directory of a cluster: `data`, or one below `elsewhere`; it exists then.

    `say` is called when it is elsewhere, and for clusters elsewhere that have no data directory.
    Raises `TickwellError` when the directory that `data` names is missing or belongs to another
    data directory, and when the cluster is not the account's.
    """
    data = data.resolve()
    if account is None:
        identifier = _identifier(data)
        if identifier is not None:
            raise TickwellError(
                f"the database of {data} was made by root and is in {elsewhere / identifier}: run "
                "as root, or name another directory with --data"
            )
        data.mkdir(parents=True, exist_ok=True)
        return data
    if not make_passable(data):
        _take_ownership(data)
    identifier = _identifier(data)
    if identifier is None:
        closed = _first_closed(data, account)
        if closed is None:
            return data
        say(f"PostgreSQL's user cannot pass {closed}, whose mode stays as it is")
    with locked_directory(elsewhere):
        if identifier is None:
            identifier = _new_directory(data, elsewhere)
        directory = elsewhere / identifier
        _check_belongs(directory, data)
        _take_ownership(directory)
        _check_cluster(directory, account)
        check_reached(directory, account)
        _move_cluster(data, directory, account)
        say(f"PostgreSQL's data is in {directory}")
        _say_abandoned(elsewhere, say)
    return directory


def new_cluster(directory: Path, account: Account | None) -> Path:
    """An empty directory for a cluster that is being made, whose name no other attempt has used.

    Programs of an attempt that was killed may still be writing to theirs.
    """
    unfinished = Path(mkdtemp(prefix=f"{CLUSTER}.unfinished-", dir=directory))
    if account is not None:
        os.chown(unfinished, *account)
    return unfinished


def remove_unfinished(directory: Path) -> None:
    """Remove what attempts that were killed have left beside the cluster."""
    for leftover in directory.glob(f"{CLUSTER}.unfinished*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _identifier(data: Path) -> str | None:
    """What `data` notes; None where it has its cluster itself, or none yet."""
    text = read_note(data / IDENTIFIER)
    if text is None:
        return None
    if not re.fullmatch(r"[0-9a-f]{16}\n?", text):  # it becomes a path
        raise TickwellError(
            f"{data / IDENTIFIER} does not hold the identifier of a cluster: restore it"
        )
    return text.strip()


def _take_ownership(directory: Path) -> None:
    """Make root the owner of the directory around a cluster.

    An earlier version gave it to the account. What is in it is checked after this, when the account
    can no longer change it.
    """
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.fstat(handle).st_uid != os.geteuid():
            with suppress(PermissionError):  # some file systems know no owners
                os.fchown(handle, os.geteuid(), os.getegid())
                os.fchmod(handle, PASSABLE)
    finally:
        os.close(handle)


def _first_closed(data: Path, account: Account) -> Path | None:
    """The folder because of which the account cannot have its cluster in `data`."""
    closed = out_of_reach(account, [data])
    if closed is not None:
        return closed
    if os.path.lexists(data / CLUSTER):
        _check_cluster(data, account)
        return None
    with TemporaryDirectory(dir=data) as attempt:  # whose mode is 0700
        try:
            os.chown(attempt, *account)
        except PermissionError:  # some file systems know no owners
            return data
        return data if out_of_reach(account, [Path(attempt)]) else None


def _check_cluster(directory: Path, account: Account) -> None:
    """Raises `TickwellError` for a cluster that is not a directory of the account."""
    cluster = directory / CLUSTER
    try:
        found = cluster.lstat()
        if stat.S_ISLNK(found.st_mode) and found.st_uid == os.geteuid():
            found = cluster.stat()  # root has put the cluster on another disk
    except FileNotFoundError:
        return
    if stat.S_ISDIR(found.st_mode) and not any(cluster.iterdir()):
        return
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != account.uid:
        raise TickwellError(
            f"{cluster} is not a directory of PostgreSQL's user (uid {account.uid}): check where "
            f"it comes from, then run `chown -R {account.uid}:{account.gid} {cluster}`"
        )


def _new_directory(data: Path, elsewhere: Path) -> str:
    """Make a directory for the cluster of `data`, and note it there; returns its identifier."""
    identifier = secrets.token_hex(8)
    directory = elsewhere / identifier
    make_passable(directory)
    write_note(directory / BELONGS_TO, str(data))
    write_note(data / IDENTIFIER, f"{identifier}\n")
    return identifier


def _check_belongs(directory: Path, data: Path) -> None:
    """Raises `TickwellError` unless the directory belongs to `data`, which may have been moved."""
    if not directory.is_dir():
        raise TickwellError(
            f"the database of {data} was in {directory}, which is missing: restore it, or delete "
            f"{data / IDENTIFIER} to begin with an empty one"
        )
    noted = read_note(directory / BELONGS_TO)
    if noted == str(data):
        return
    if noted is not None:
        belongs_to = Path(noted)
        if _identifier(belongs_to) == directory.name and not belongs_to.samefile(data):
            raise TickwellError(
                f"{data} is a copy, and its database belongs to {belongs_to}: delete that one, or "
                f"delete {data / IDENTIFIER} to begin with an empty database"
            )
    _take_ownership(directory)
    write_note(directory / BELONGS_TO, str(data))


def _move_cluster(data: Path, directory: Path, account: Account) -> None:
    """Move a cluster that was made in `data`, while that could be reached, to `directory`.

    Interrupted, it is finished the next time: the cluster appears by one rename, after its
    password, and the copied one is renamed before it and deleted after it. Raises `TickwellError`
    where both directories have a cluster.
    """
    before, after, copied = data / CLUSTER, directory / CLUSTER, data / f"{CLUSTER}.copied"
    if os.path.lexists(copied) and not os.path.lexists(after):
        copied.rename(before)
    if os.path.lexists(before):
        if os.path.lexists(after):
            raise TickwellError(
                f"{before} and {after} are databases of the same data directory: move the one that "
                "is not wanted elsewhere"
            )
        _check_cluster(data, account)
        password = read_note(data / "password")
        if password is not None:
            write_note(directory / "password", password)
        try:
            before.rename(after)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            unfinished = new_cluster(directory, account)
            _copy_cluster(before, unfinished, account)
            before.rename(copied)
            unfinished.rename(after)
    if os.path.lexists(copied):
        shutil.rmtree(copied, ignore_errors=True)


def _copy_cluster(before: Path, unfinished: Path, account: Account) -> None:
    """Copy a cluster to another file system, as the account, which must not read what root can.

    The account cannot pass the folders above `before`, but begins in it.
    """
    copied = run_as(account, ["cp", "-a", ".", str(unfinished)], cwd=before)
    if copied.returncode != 0:
        raise TickwellError(
            f"{before} cannot be copied to {unfinished.parent}: {one_line(copied.stderr)}"
        )


def _say_abandoned(elsewhere: Path, say: Say) -> None:
    """Name directories whose data directory is gone; they may still be needed, so they stay."""
    abandoned = []
    for note in sorted(elsewhere.glob(f"*/{BELONGS_TO}")):
        try:
            belongs_to = Path(read_note(note) or "?")
            found = _identifier(belongs_to)
        except TickwellError:  # an earlier version left the note to the account
            belongs_to, found = Path("?"), None
        if found != note.parent.name:
            abandoned.append(f"{note.parent} (of {belongs_to})")
    if abandoned:
        say(
            f"databases whose data directories are gone: {', '.join(abandoned)}; delete those that "
            "nobody needs"
        )
