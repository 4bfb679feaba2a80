"""API keys in a real Postgres and a real Redis: made, seen by servers, revoked; and either away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import psycopg2
import pytest
import redis
from sqlalchemy import Engine, text
from starlette.routing import Route
from starlette.testclient import TestClient

from registry import api_keys as recorded
from registry import redis_clients
from registry.api_keys import Scope
from registry.database.engine import connect
from registry.errors import (
    ApiKeyHalfRevoked,
    ApiKeyNameTaken,
    InvalidApiKey,
    NoApiKeys,
    UnknownApiKey,
)
from registry.formats import api_key
from registry.formats.redis_keys import API_KEYS_KEY
from registry.lifecycle import api_keys
from serving.app import ServerOptions, create_app
from tests.support.pipeline import wait_for
from tests.support.served import beat

NOWHERE = "postgresql://u:p@127.0.0.1:1/none"
NO_REDIS = "redis://127.0.0.1:1/0"
ASK = {"features": ["current_price"], "entity": {"symbol": "A"}}
Opens = Callable[[], Any]


def opens(url: str) -> Opens:
    return lambda: redis_clients.warm(url)


@pytest.fixture
def open_redis(redis_database: str) -> Opens:
    return opens(redis_database)


def make(engine: Engine, open_redis: Opens, name: str, *scopes: Scope) -> str:
    made = api_keys.create(engine, name, scopes or (Scope.READ,), "ann")
    api_keys.publish(engine, open_redis)
    return made.text


def ask(client: TestClient, key: str) -> int:
    headers = {"authorization": f"Bearer {key}"}
    return client.post("/features/online", json=ASK, headers=headers).status_code


def becomes(client: TestClient, key: str, status: int) -> None:
    wait_for(f"{status}", lambda: ask(client, key) == status, patience=20)


@contextmanager
def _server(redis_url: str, hot: str, postgres: str) -> Iterator[TestClient]:
    options = ServerOptions(redis_url, hot, postgres, needs_keys=True)
    with TestClient(create_app(options), raise_server_exceptions=False) as made:
        yield made


Server = Callable[..., AbstractContextManager[TestClient]]


@pytest.fixture
def server(redis_database: str, hot_redis: str, database: str) -> Server:
    """Starts a server that needs keys; `postgres` and `redis_url` may be other ones."""
    beat(redis_database)

    def start(postgres: str = database, redis_url: str = redis_database) -> Any:
        return _server(redis_url, hot_redis, postgres)

    return start


@contextmanager
def nobody_connects(url: str) -> Iterator[None]:
    """While Postgres ends every session of a database, and refuses new ones."""
    name = urlsplit(url).path.strip("/")
    admin = psycopg2.connect(urlsplit(url)._replace(path="/postgres").geturl())
    admin.autocommit = True
    cursor = admin.cursor()
    cursor.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    cursor.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name]
    )
    try:
        yield
    finally:
        cursor.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        admin.close()


def test_only_a_hash_is_kept_and_who_did_what(engine: Engine, open_redis: Opens) -> None:
    text_of_key = make(engine, open_redis, "model", Scope.WRITE, Scope.READ)
    with engine.connect() as connection:
        (row,) = connection.execute(text("SELECT * FROM tickwell.api_keys")).all()
    with open_redis() as client:
        copy = client.get(API_KEYS_KEY)
    assert bytes(row.sha256) == api_key.digest(text_of_key.encode())
    assert text_of_key not in str(row)
    assert text_of_key[3:].encode() not in copy
    assert recorded.decode(copy) == recorded.load(engine)
    assert row.scopes == ["read", "write"]
    api_keys.revoke(engine, open_redis, "model", "bob")
    with engine.connect() as connection:
        audit = text("SELECT actor, action, subject FROM tickwell.audit ORDER BY id")
        assert [tuple(row) for row in connection.execute(audit)] == [
            ("ann", "create key", "model"),
            ("bob", "revoke key", "model"),
        ]
    with open_redis() as client:
        assert recorded.decode(client.get(API_KEYS_KEY)).keys == ()
    (listed,) = api_keys.listed(engine, revoked=True)
    assert (listed.created_by, listed.revoked_by) == ("ann", "bob")
    assert api_keys.listed(engine) == []


def test_names_and_numbers(engine: Engine, open_redis: Opens) -> None:
    make(engine, open_redis, "model")
    with pytest.raises(ApiKeyNameTaken, match="'model', which is valid"):
        make(engine, open_redis, "model")
    first = api_keys.revoke(engine, open_redis, "model", "ann")
    make(engine, open_redis, "model")
    second = api_keys.revoke(engine, open_redis, "model", "ann")
    assert second.id != first.id
    # once more is no error, and changes nothing
    assert api_keys.revoke(engine, open_redis, str(first.id), "bob") == first
    for which in ("other", "4711", str(2**40), "", "²"):
        with pytest.raises(UnknownApiKey):
            api_keys.revoke(engine, open_redis, which, "ann")
    for name in ("", "1", "a b", "ä", "a" * 65, "-a", "a\n"):
        with pytest.raises(InvalidApiKey, match="is no name for a key"):
            make(engine, open_redis, name)
    with pytest.raises(InvalidApiKey, match="--scope read, --scope write"):
        api_keys.create(engine, "a", (), "ann")
    for days in (0, -1, 3_651):
        with pytest.raises(InvalidApiKey, match="at most 3650 days"):
            api_keys.create(engine, "a", (Scope.READ,), "ann", timedelta(days=days))


def test_a_database_of_an_earlier_build(engine: Engine, open_redis: Opens) -> None:
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE tickwell.api_keys"))
    with pytest.raises(NoApiKeys, match="run `tickwell migrate`"):
        recorded.load(engine)
    with pytest.raises(NoApiKeys):
        make(engine, open_redis, "model")
    with pytest.raises(NoApiKeys):
        api_keys.publish(engine, open_redis)


def test_a_running_server_sees_what_is_made_and_revoked(
    engine: Engine, open_redis: Opens, server: Server
) -> None:
    with server() as client:
        assert client.get("/health/ready").status_code == 200
        key = make(engine, open_redis, "model")
        becomes(client, key, 200)
        assert ask(client, api_key.make()) == 401
        api_keys.revoke(engine, open_redis, "model", "ann")
        becomes(client, key, 401)


def test_no_route_but_health_and_metrics_answers_without_a_key(
    engine: Engine, open_redis: Opens, server: Server
) -> None:
    key = make(engine, open_redis, "model")
    with server() as client:
        paths = {r.path for r in client.app.routes if isinstance(r, Route)}  # type: ignore[attr-defined]
        for path in paths | {"/", "/features", "/keys", "/nowhere"}:
            is_open = path.startswith("/health") or path == "/metrics"
            for method in ("GET", "HEAD", "POST", "PUT", "DELETE"):
                status = client.request(method, path).status_code
                assert (status != 401) is (is_open and method in ("GET", "HEAD")), (method, path)
            assert client.get(path, headers={"x-api-key": key}).status_code in (
                200,
                403,
                404,
                405,
                422,
            )
        assert client.put("/features/online", headers={"x-api-key": key}).status_code == 403


def test_without_postgres_the_copy_is_used_and_a_revocation_holds(
    engine: Engine, open_redis: Opens, server: Server
) -> None:
    key, other = make(engine, open_redis, "model"), make(engine, open_redis, "other")
    with server(postgres=NOWHERE) as client:
        # no features are known without Postgres: it is the key that is of interest
        becomes(client, key, 503)
        assert ask(client, api_key.make()) == 401
        api_keys.revoke(engine, open_redis, "model", "ann")
        becomes(client, key, 401)
        assert ask(client, other) == 503


def test_neither_store_knows_keys(server: Server) -> None:
    with server(postgres=NOWHERE) as client:
        assert client.get("/health/ready").status_code == 503
        answer = client.post("/features/online", json=ASK, headers={"x-api-key": api_key.make()})
        assert answer.status_code == 503
        assert "the API keys are not known yet (Postgres: " in answer.json()["detail"]


def test_postgres_goes_away_under_a_server(
    engine: Engine, open_redis: Opens, server: Server, database: str
) -> None:
    """Keys of before stay valid, and one that is revoked meanwhile is refused for good."""
    key, other = make(engine, open_redis, "model"), make(engine, open_redis, "other")
    with server() as client:
        becomes(client, key, 200)
        with nobody_connects(database):
            engine.dispose()
            with pytest.raises(ApiKeyHalfRevoked, match=r"'model' is revoked in Redis.*again once"):
                api_keys.revoke(engine, open_redis, "model", "ann")
            becomes(client, key, 401)
            assert ask(client, other) == 200
        wait_for(
            "Postgres is read again",
            lambda: client.get("/health").json()["stores"]["postgres"] == "ok",
        )
        assert ask(client, key) == 401  # although Postgres does not know of it
        assert [one.name for one in api_keys.listed(engine)] == ["model", "other"]
        api_keys.revoke(engine, open_redis, "model", "ann")
        assert [one.name for one in api_keys.listed(engine)] == ["other"]
        assert ask(client, other) == 200


def test_redis_does_not_take_a_revocation(
    engine: Engine, open_redis: Opens, server: Server
) -> None:
    key = make(engine, open_redis, "model")
    with server() as client:
        becomes(client, key, 200)
        with pytest.raises(ApiKeyHalfRevoked, match=r"revoked in Postgres.*Redis did not take it"):
            api_keys.revoke(engine, opens(NO_REDIS), "model", "ann")
        becomes(client, key, 401)
    with server(postgres=NOWHERE) as client:
        becomes(client, key, 503)  # as the error has said: it is known by the copy alone
        api_keys.revoke(engine, open_redis, "model", "ann")
        becomes(client, key, 401)


def test_postgres_goes_away_after_both_have_taken_a_revocation(
    engine: Engine, open_redis: Opens, server: Server, database: str
) -> None:
    """The connection is lost before the copy is made anew: then the error is of the copy alone."""
    key = make(engine, open_redis, "model")
    with server() as client, ExitStack() as stack:
        becomes(client, key, 200)

        def open_once_postgres_has_it() -> Any:
            stack.enter_context(nobody_connects(database))
            engine.dispose()
            stack.callback(engine.dispose)
            return open_redis()

        said = r"'model' is revoked in Postgres and in Redis.*only the copy"
        with pytest.raises(ApiKeyHalfRevoked, match=said):
            api_keys.revoke(engine, open_once_postgres_has_it, "model", "ann")
        becomes(client, key, 401)
    assert api_keys.listed(engine) == []
    api_keys.revoke(engine, open_redis, "model", "ann")  # completes it


def test_nothing_is_revoked_where_no_store_answers(open_redis: Opens) -> None:
    nowhere = connect(NOWHERE)
    with pytest.raises(ApiKeyHalfRevoked, match=r"nothing is revoked: neither Postgres .* nor"):
        api_keys.revoke(nowhere, opens(NO_REDIS), "model", "ann")
    with pytest.raises(ApiKeyHalfRevoked, match="the copy in Redis has no key with"):
        api_keys.revoke(nowhere, open_redis, "model", "ann")


def test_an_older_copy_makes_nothing_valid_again(
    engine: Engine, open_redis: Opens, server: Server, database: str
) -> None:
    """Redis is away when a key is revoked, then Postgres: what a server has read before counts."""
    key, other = make(engine, open_redis, "model"), make(engine, open_redis, "other")
    with server() as asked:
        becomes(asked, key, 200)
        with pytest.raises(ApiKeyHalfRevoked):
            api_keys.revoke(engine, opens(NO_REDIS), "model", "ann")
        becomes(asked, key, 401)
        with nobody_connects(database), open_redis() as client:
            wait_for(
                "Postgres is not read",
                lambda: asked.get("/health").json()["stores"]["postgres"] != "ok",
            )
            seen = reads(client)
            wait_for("the copy was read several times", lambda: reads(client) > seen + 10)
            assert "model" in [k.name for k in recorded.decode(client.get(API_KEYS_KEY)).keys]
            assert (ask(asked, key), ask(asked, other)) == (401, 200)


def reads(client: redis.Redis) -> int:
    """How often servers have read revoked keys and workers, each twice a second at most."""
    stats: Any = client.info("commandstats")
    return int(stats["cmdstat_smembers"]["calls"])


def test_an_expired_key_keeps_its_name(engine: Engine, open_redis: Opens, server: Server) -> None:
    key = make(engine, open_redis, "model")
    with engine.begin() as connection:
        connection.execute(text("UPDATE tickwell.api_keys SET expires_at = now() - interval '1s'"))
    with server() as client:
        answer = client.post("/features/online", json=ASK, headers={"x-api-key": key})
        assert (answer.status_code, "expired at" in answer.json()["detail"]) == (401, True)
    with pytest.raises(ApiKeyNameTaken, match="has expired and is not revoked"):
        make(engine, open_redis, "model")
