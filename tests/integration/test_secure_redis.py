"""Redis over TLS, with a user of its own and a certificate of our own authority."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import trustme

from pipelines.stores.redis.connection import WarmRedis
from pipelines.stores.redis.online_sink import OnlineSink
from pipelines.stores.redis.server_checks import check_server
from registry import redis_clients
from registry.formats.hot import mark_key, row_key
from tests.support.feeds import FeedingWorker
from tests.support.logs import TOPIC_ID, runs
from tests.support.servers import SecureRedis, secure_redis
from tests.support.sinks import GO_ON, Opened, ticks, worker
from tests.support.stored import stored_row

PERMISSIONS = "~tw:* +@all -@dangerous +info"
"""All keys of ours and no administration; `info` tells whether the server evicts."""

CLIENTS = [
    redis_clients.warm,
    redis_clients.heartbeat,
    redis_clients.feed,
    redis_clients.throttle,
    redis_clients.probe,
    redis_clients.survey,
    redis_clients.rows,
    redis_clients.watch,
]


@pytest.fixture(scope="module")
def server(data: Path) -> Iterator[SecureRedis]:
    blind = PERMISSIONS.replace(" +info", "")
    with secure_redis(data / "secure-redis", PERMISSIONS, blind=blind) as made:
        yield made


def ping(client: Any) -> bool:
    """The answer to PING by a client, which is then closed."""

    async def ask() -> Any:
        try:
            return await client.ping()
        finally:
            await client.aclose()

    if isinstance(client, redis.asyncio.Redis):
        return bool(asyncio.run(ask()))
    with client:
        return bool(client.ping())


def test_every_client_is_tried() -> None:
    made = {
        function
        for name, function in inspect.getmembers(redis_clients, inspect.isfunction)
        if not name.startswith("_")
        and function.__module__ == redis_clients.__name__
        and function.__annotations__["return"] == "Any"  # redis-py's clients have no common type
    }
    assert made == set(CLIENTS)


@pytest.mark.parametrize("make", CLIENTS)
def test_a_client_reaches_it(server: SecureRedis, make: Any) -> None:
    assert ping(make(server.url()))


@pytest.mark.parametrize("make", CLIENTS)
def test_no_client_believes_another_authority(
    server: SecureRedis, tmp_path: Path, make: Any
) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)
    with pytest.raises(redis.ConnectionError, match="certificate verify failed"):
        ping(make(server.url(ca=str(other))))


def test_no_client_believes_another_name(server: SecureRedis) -> None:
    with pytest.raises(redis.ConnectionError, match="Hostname mismatch"):
        ping(redis_clients.warm(server.url().replace("@127.0.0.1:", "@localhost:")))


def test_a_user_who_cannot_see_whether_it_evicts_is_trusted(
    server: SecureRedis, opened: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    check_server(opened(WarmRedis(server.url())))
    assert not caplog.text
    check_server(opened(WarmRedis(server.url(user="blind"))))
    assert "cannot see its maxmemory-policy" in caplog.text


def test_another_password_is_refused(server: SecureRedis) -> None:
    with pytest.raises(redis.AuthenticationError):
        ping(redis_clients.warm(server.url(password="another")))


def test_a_worker_stores_and_what_it_stored_is_read(server: SecureRedis, opened: Opened) -> None:
    (run,) = runs(ticks(["A", "B"], 60), ())
    batch = worker(opened(OnlineSink(server.url()))).materialize(run, GO_ON)
    assert batch is not None
    assert len(batch) == 60

    async def read() -> Any:
        client = redis_clients.rows(server.url())
        try:
            return await stored_row(client, "price", "A")
        finally:
            await client.aclose()

    assert asyncio.run(read()) is not None


HOT_RIGHTS = (
    "~tw:* ~th:* +get +set +del +mget +exists +sadd +smembers +srem +pexpireat +time +evalsha"
    " +script|load +ping"
)
"""As the README has them, for a Redis that does not know `CLIENT NO-TOUCH` yet."""


def test_hot_is_fed_with_the_rights_that_the_readme_names(
    data: Path, opened: Opened, redis_database: str
) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    assert HOT_RIGHTS.replace("|", "\\|") in readme
    with secure_redis(data / "secure-hot", HOT_RIGHTS) as server:
        work = FeedingWorker(opened, redis_database, server.url()).take()
        first, second = runs(ticks(["A"], 20), (10,))
        work.store(first)
        work.feed.turn()
        with redis_clients.feed(server.url()) as hot, redis.Redis.from_url(redis_database) as warm:
            token = hot.get(mark_key(TOPIC_ID, 0))
            hot.set(row_key("price", "A"), token + stored_row(warm, "price", "A"))
            work.store(second)
            work.feed.turn()
            assert hot.get(row_key("price", "A")) == token + stored_row(warm, "price", "A")
            assert work.feed.state == "fed"
