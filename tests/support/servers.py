"""Servers that Python cannot bring: Debian's Redis and PostgreSQL, which have TLS, and others.

They listen on 127.0.0.1, with certificates that the test makes. `.ci/run` installs them where it
can, and names in TICKWELL_TEST_SERVERS those that it installed: one of these that is missing fails
the tests that need it. Elsewhere such tests are skipped.
"""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from signal import SIGINT
from urllib.parse import quote, urlencode, urlsplit

import psycopg2
import pytest
import redis
import trustme

from tests.support.services import embedded
from tickwell.embedded.ports import HOST, keep_port
from tickwell.embedded.postgres import SYSTEM_USER
from tickwell.embedded.system_user import ensure_account, run_as
from tickwell.up.process import Account, Spec

SYSTEM_DIRECTORIES = ("/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin")


def program(name: str) -> Path:
    """The path of an installed server. Without it the calling test is skipped, or fails."""
    versions = map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True))
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *SYSTEM_DIRECTORIES, *versions))
    found = shutil.which(name, path=path)
    if found is None and name in os.environ.get("TICKWELL_TEST_SERVERS", "").split():
        pytest.fail(f".ci/run installed {name}, and it is not found in {path}")
    if found is None:
        pytest.skip(f"{name} is not installed; on Debian: apt-get install {name}")
    return Path(found)


@dataclass(frozen=True)
class SecureRedis:
    """A Redis with TLS alone, and one user beside the default one, which is disabled."""

    port: int
    user: str
    password: str
    ca: Path
    """The certificate of the authority that signed the server's, as PEM."""

    def url(self, **changes: str) -> str:
        """The URL with `user`, `password` and `ca`, or with other ones."""
        given = {"user": self.user, "password": self.password, "ca": str(self.ca), **changes}
        who = f"{quote(given['user'], '')}:{quote(given['password'], '')}"
        return f"rediss://{who}@{HOST}:{self.port}/0?{urlencode({'ssl_ca_certs': given['ca']})}"


@contextmanager
def secure_redis(directory: Path, permissions: str, **others: str) -> Iterator[SecureRedis]:
    """Debian's Redis in `directory`; its user has the ACL rules `permissions`.

    `others` are the rules of other users with the same password, by name.
    """
    argv = [str(program("redis-server"))]
    directory.mkdir(parents=True, exist_ok=True)
    authority = trustme.CA()
    server = SecureRedis(
        keep_port(directory / "port"), "tickwell", "secret/with:signs@", directory / "ca.pem"
    )
    authority.cert_pem.write_to_path(server.ca)
    certificate = authority.issue_cert(HOST)
    certificate.private_key_pem.write_to_path(directory / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(directory / "certificate.pem")
    settings = directory / "redis.conf"
    settings.write_text(
        f"bind {HOST}\nport 0\ntls-port {server.port}\ntls-auth-clients no\n"
        f"tls-cert-file {directory}/certificate.pem\ntls-key-file {directory}/key.pem\n"
        f"tls-ca-cert-file {server.ca}\ndir {directory}\nsave ''\n"
        "user default off\n"
        + "".join(
            f"user {name} on >{server.password} {rules}\n"
            for name, rules in {server.user: permissions, **others}.items()
        )
    )

    def check() -> None:
        try:
            with redis.Redis.from_url(server.url()) as client:
                client.ping()
        except redis.RedisError as error:
            raise OSError(str(error)) from None

    log = directory / "redis.log"
    spec = Spec("redis-server", [*argv, str(settings)], log, f"{HOST}:{server.port}", check=check)
    with embedded(lambda: (spec, server.url())):
        yield server


@contextmanager
def pgbouncer(directory: Path, postgres: str, mode: str = "transaction") -> Iterator[str]:
    """The URL of a database of the server at `postgres`, through a PgBouncer as it is installed.

    Each client, and in the mode `transaction` each transaction, gets another session of the server
    than the one before, where there are several.
    """
    argv = [str(program("pgbouncer"))]
    directory.mkdir(parents=True, exist_ok=True)
    behind = urlsplit(postgres)
    port = keep_port(directory / "port")
    url = behind._replace(netloc=f"{behind.username}:{behind.password}@{HOST}:{port}").geturl()
    (directory / "users.txt").write_text(f'"{behind.username}" "{behind.password}"\n')
    settings = directory / "pgbouncer.ini"
    settings.write_text(
        f"[databases]\n* = host={behind.hostname} port={behind.port}\n"
        f"[pgbouncer]\nlisten_addr = {HOST}\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = scram-sha-256\nauth_file = {directory}/users.txt\npool_mode = {mode}\n"
        "server_round_robin = 1\n"
    )

    def check() -> None:
        try:
            psycopg2.connect(url, connect_timeout=2).close()
        except psycopg2.OperationalError as error:
            raise OSError(str(error).strip()) from None

    log = directory / "pgbouncer.log"
    account = None
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        account = Account(nobody.pw_uid, nobody.pw_gid)
        os.chown(directory, *account)
    address = f"{HOST}:{port}"
    spec = Spec("pgbouncer", [*argv, str(settings)], log, address, account=account, check=check)
    with embedded(lambda: (spec, url)):
        yield url


@dataclass(frozen=True)
class SecurePostgres:
    """A PostgreSQL with TLS alone, which writes nothing unless it is told to, as a standby."""

    port: int
    password: str
    directory: Path
    """It has `ca.pem`, of the authority that signed the server's certificate, and `other.pem`."""

    def url(self, authority: str = "ca.pem", host: str = HOST) -> str:
        """The URL of a client that checks the certificate and the name."""
        checks = urlencode({"sslmode": "verify-full", "sslrootcert": self.directory / authority})
        return f"postgresql://postgres:{self.password}@{host}:{self.port}/postgres?{checks}"


@contextmanager
def secure_postgres(directory: Path, password: str) -> Iterator[SecurePostgres]:
    """Debian's PostgreSQL in `directory`."""
    postgres = program("postgres")
    directory.mkdir(parents=True)
    made = SecurePostgres(keep_port(directory / "port"), password, directory)
    trustme.CA().cert_pem.write_to_path(directory / "other.pem")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(directory / "ca.pem")
    certificate = authority.issue_cert(HOST)
    files = {name: directory / f"{name}.pem" for name in ("certificate", "key")}
    certificate.cert_chain_pems[0].write_to_path(files["certificate"])
    certificate.private_key_pem.write_to_path(files["key"])
    files["key"].chmod(0o600)
    account = ensure_account(SYSTEM_USER) if os.geteuid() == 0 else None
    (directory / "password").write_text(password)
    for path in (directory, files["key"]) if account else ():
        os.chown(path, *account)
    cluster = directory / "cluster"
    words = ("-U", "postgres", "--auth", "scram-sha-256", "--pwfile", str(directory / "password"))
    initialized = run_as(
        account, [str(postgres.with_name("initdb")), "-D", str(cluster), *words, "--no-sync"]
    )
    assert initialized.returncode == 0, initialized.stderr
    (cluster / "pg_hba.conf").write_text("hostssl all all all scram-sha-256\n")
    settings = {
        "port": made.port,
        "ssl": "on",
        "ssl_cert_file": files["certificate"],
        "ssl_key_file": files["key"],
        "listen_addresses": HOST,
        "unix_socket_directories": "",
        "default_transaction_read_only": "on",
    }
    argv = [str(postgres), "-D", str(cluster)]
    argv += [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    log = directory / "postgres.log"
    address = f"{HOST}:{made.port}"

    def check() -> None:
        try:
            psycopg2.connect(made.url(), connect_timeout=2).close()
        except psycopg2.OperationalError as error:
            raise OSError(str(error).strip()) from None

    spec = Spec("postgres", argv, log, address, account=account, check=check, stop_signal=SIGINT)
    with embedded(lambda: (spec, made.url())):
        yield made
