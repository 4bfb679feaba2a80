"""Postgres over TLS, with a certificate of our own authority, and as one of several hosts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from sqlalchemy.exc import OperationalError

from pipelines.errors import StoreUnavailable
from pipelines.stores.postgres.connection import Database
from registry.database.engine import connect
from tests.support.servers import SecurePostgres, secure_postgres
from tickwell.embedded.ports import HOST

Ask = Callable[[str, str], object]
ENCRYPTED = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
PORT = "SELECT inet_server_port()"


@pytest.fixture(scope="module")
def server(data: Path, postgres: str) -> Iterator[SecurePostgres]:
    """A server with the password of the other one: a URL has one for all of its hosts."""
    with secure_postgres(data / "secure-postgres", urlsplit(postgres).password or "") as made:
        yield made


def asked_by_a_sink(url: str, query: str) -> object:
    with closing(Database(url, "tickwell test")) as database, database.transaction() as cursor:
        cursor.execute(query)
        return cursor.fetchone()[0]


def asked_by_an_engine(url: str, query: str) -> object:
    engine = connect(url)
    try:
        with engine.connect() as connection:
            return connection.exec_driver_sql(query).scalar_one()
    finally:
        engine.dispose()


WAYS = [asked_by_a_sink, asked_by_an_engine]


@pytest.mark.parametrize("ask", WAYS)
def test_a_connection_checks_the_certificate(server: SecurePostgres, ask: Ask) -> None:
    assert ask(server.url(), ENCRYPTED)


@pytest.mark.parametrize("ask", WAYS)
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"authority": "other.pem"}, "certificate verify failed"),
        ({"host": "localhost"}, 'does not match host name "localhost"'),
    ],
)
def test_a_certificate_that_is_refused_is_told(
    server: SecurePostgres, ask: Ask, changes: dict[str, str], said: str
) -> None:
    with pytest.raises((StoreUnavailable, OperationalError), match=said) as refused:
        ask(server.url(**changes), ENCRYPTED)
    assert server.password not in str(refused.value)


@pytest.mark.parametrize("ask", WAYS)
def test_of_several_hosts_the_one_that_takes_writes_is_used(
    server: SecurePostgres, postgres: str, ask: Ask
) -> None:
    """The first does not answer, and the second is a standby."""
    writes = urlsplit(postgres)
    hosts = f"{HOST}:1,{HOST}:{server.port},{HOST}:{writes.port}"
    url = f"postgresql://postgres:{server.password}@{hosts}/postgres"
    assert ask(url, PORT) == writes.port
    assert ask(f"{url}?target_session_attrs=any", PORT) == server.port


def test_an_error_has_the_reason_of_each_host(server: SecurePostgres) -> None:
    hosts = f"{HOST}:1,{HOST}:{server.port}"
    with pytest.raises(StoreUnavailable, match=r"port 1 failed.*session is read-only"):
        asked_by_a_sink(f"postgresql://postgres:{server.password}@{hosts}/postgres", PORT)
