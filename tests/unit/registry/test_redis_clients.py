"""Every client of Redis states its limits, and none is made elsewhere."""

import ast
import inspect
import ssl
from collections.abc import Iterator
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
import trustme

from registry import redis_clients
from registry.redis_clients import HEARTBEAT, PROBE, ROWS, THROTTLE, WARM, WATCH, Limits

FACTORY = Path("redis_clients.py")

CLIENTS = {
    *("Redis", "StrictRedis", "RedisCluster", "Sentinel"),
    *("ConnectionPool", "BlockingConnectionPool"),
}
"""The clients of redis-py, and the pools that they can be made of."""


def parameters() -> set[str]:
    """The names of what redis-py's connections and pools are made of."""
    classes = (
        *(redis.Connection, redis.SSLConnection, redis.ConnectionPool),
        *(redis.asyncio.Connection, redis.asyncio.SSLConnection),
        *(redis.asyncio.ConnectionPool, redis.asyncio.BlockingConnectionPool),
    )
    return {
        name
        for one in classes
        for parent in one.__mro__
        for name in inspect.signature(parent.__init__).parameters
        if name not in ("self", "args", "kwargs", "connection_kwargs")
    }


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "rediss://x:y@[::1]:1", "unix:///tmp/x"])
@pytest.mark.parametrize(
    ("client", "limits"),
    [
        (redis_clients.warm, WARM),
        (redis_clients.heartbeat, HEARTBEAT),
        (redis_clients.throttle, THROTTLE),
        (redis_clients.probe, PROBE),
        (redis_clients.rows, ROWS),
        (redis_clients.watch, WATCH),
    ],
)
def test_a_client_states_its_limits_and_does_not_retry(
    client: Any, limits: Limits, url: str
) -> None:
    pool = client(url).connection_pool
    stated = dict(pool.connection_kwargs, max_connections=pool.max_connections)
    assert {name: stated[name] for name in asdict(limits)} == asdict(limits)
    assert stated["retry"].get_retries() == 0
    connection = pool.connection_class(**pool.connection_kwargs)
    assert connection.retry.get_retries() == 0


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("name", sorted(parameters()))
def test_what_a_client_cannot_be_made_with_is_refused_before_any_is_made(
    name: str, tls: bool
) -> None:
    """Of all parameters that redis-py has: each is refused, or every client has its limits."""
    url = f"{'rediss' if tls else 'redis'}://127.0.0.1:1/0?{name}=7"
    if redis_clients.refused_parameter(url) is not None:
        return
    for client, limits in ((redis_clients.warm, WARM), (redis_clients.rows, ROWS)):
        pool: Any = client(url).connection_pool
        made = pool.make_connection()
        assert made.socket_timeout == limits.socket_timeout
        assert made.socket_connect_timeout == limits.socket_connect_timeout
        assert pool.max_connections == limits.max_connections
        assert made.retry.get_retries() == 0
        assert made.encoder.decode_responses is False
        assert (made.credential_provider, made.redis_connect_func) == (None, None)


@pytest.mark.parametrize(
    ("url", "address", "other"),
    [
        ("redis://h", "h:6379", "redis://[::1]:7"),
        ("redis://h:1/0", "h:1", "redis://[::1]:7/0"),
        ("redis://u:p@ss@h:1/0", "h:1", "redis://u:p@ss@[::1]:7/0"),
        (
            "rediss://u:p%40@[::2]:1?ssl_ca_certs=%2Fx&ssl_cert_reqs=none",
            "[::2]:1",
            "rediss://u:p%40@[::1]:7?ssl_ca_certs=%2Fx&ssl_cert_reqs=none",
        ),
    ],
)
def test_the_url_of_another_node_differs_in_its_address_alone(
    url: str, address: str, other: str
) -> None:
    assert redis_clients.address_of(url) == address
    assert redis_clients.at_address(url, "::1:7") == other
    assert redis_clients.at_address(other, address).startswith(url.partition("?")[0])
    made = redis_clients.rows(redis_clients.at_address(url, "10.0.0.1:7")).connection_pool
    known = redis_clients.rows(url).connection_pool.connection_kwargs
    assert {name: made.connection_kwargs[name] for name in ("host", "port")} == {
        "host": "10.0.0.1",
        "port": 7,
    }
    for name in ("username", "password", "ssl_ca_certs", "db"):
        assert made.connection_kwargs.get(name) == known.get(name)


@pytest.mark.parametrize(
    ("url", "address", "handshake"),
    [
        ("redis://h", "h:6379", []),
        ("redis://[::1]:7/0?protocol=3", "[::1]:7", []),
        ("redis://:p%40s@h:1/2", "h:1", [("AUTH", "p@s"), ("SELECT", "2")]),
        ("redis://u:p@h:1?db=3", "h:1", [("AUTH", "u", "p"), ("SELECT", "3")]),
        ("redis://u@h:1?client_name=n", "h:1", [("AUTH", "u", ""), ("CLIENT", "SETNAME", "n")]),
        ("redis://h:1?username=u&password=p", "h:1", [("AUTH", "u", "p")]),
        ("unix://u:p@/tmp/x?db=1", "/tmp/x", [("AUTH", "u", "p"), ("SELECT", "1")]),
        ("rediss://u:p@h:1", "h:1", [("AUTH", "u", "p")]),
    ],
)
def test_a_link_says_of_itself_what_redis_py_would(
    url: str, address: str, handshake: list[Any]
) -> None:
    options = redis_clients.link_options(url)
    assert options.address == address
    assert list(options.handshake) == handshake
    assert (options.tls is None) is not url.startswith("rediss")
    assert (options.path is None) is not url.startswith("unix")
    assert "p@s" not in repr(options)
    assert "AUTH" not in repr(options)


def test_a_link_has_a_keepalive_unless_the_url_says_otherwise() -> None:
    default = redis_clients.link_options("redis://h")
    connection = redis_clients.rows("redis://h").connection_pool.make_connection()
    assert default.keepalive == connection.socket_keepalive_options
    assert redis_clients.link_options("redis://h?socket_keepalive=0").keepalive is None
    assert redis_clients.link_options("unix:///tmp/x").keepalive is None


@pytest.mark.parametrize(
    ("given", "verified", "named", "least"),
    [
        ("", ssl.CERT_REQUIRED, True, None),
        ("ssl_cert_reqs=none", ssl.CERT_NONE, False, None),
        ("ssl_cert_reqs=optional&ssl_check_hostname=no", ssl.CERT_OPTIONAL, False, None),
        (f"ssl_min_version={ssl.TLSVersion.TLSv1_3}", ssl.CERT_REQUIRED, True, "TLSv1_3"),
    ],
)
def test_a_link_checks_a_server_as_the_url_says(
    given: str, verified: ssl.VerifyMode, named: bool, least: str | None
) -> None:
    make = redis_clients.link_options(f"rediss://h?{given}").tls
    assert make is not None
    made = make()
    assert (made.verify_mode, made.check_hostname) == (verified, named)
    assert least is None or made.minimum_version is ssl.TLSVersion[least]
    assert make() is not made  # files may have changed


def test_a_link_shows_a_certificate_of_its_own(tmp_path: Path) -> None:
    """The files are read when it connects, not before."""
    file = tmp_path / "client.pem"
    make = redis_clients.link_options(f"rediss://h?ssl_certfile={file}").tls
    assert make is not None
    with pytest.raises(FileNotFoundError):
        make()
    trustme.CA().issue_cert("me").private_key_and_cert_chain_pem.write_to_path(file)
    make()


def test_a_reader_of_rows_waits_for_a_connection_as_long_as_for_an_answer() -> None:
    assert redis_clients.rows("redis://127.0.0.1:1/0").connection_pool.timeout == 1.0


@pytest.mark.parametrize("package", ["registry", "pipelines", "serving", "tickwell"])
def test_no_client_is_made_elsewhere(package: str) -> None:
    root = Path(str(files(package)))
    found = [
        f"{package}/{path.relative_to(root)}:{line}"
        for path in sorted(root.rglob("*.py"))
        if (package, path.relative_to(root)) != ("registry", FACTORY)
        for line in clients_made(path.read_text("utf-8"))
    ]
    assert not found


@pytest.mark.parametrize(
    "made",
    [
        "import redis\nredis.Redis()",
        "import redis.asyncio as r\nr.Redis.from_url(url)",
        "import redis\nredis.from_url(url)",
        "from redis import Redis",
        "from redis.asyncio import from_url",
        "from redis.asyncio.cluster import RedisCluster as Cluster",
        "from redis.connection import *",
    ],
)
def test_clients_are_found(made: str) -> None:
    assert list(clients_made(made))


def clients_made(module: str) -> Iterator[int]:
    """The lines of a module that make a client of Redis, or import what makes one."""
    for node in ast.walk(ast.parse(module)):
        match node:
            case ast.ImportFrom(module=str(origin), names=names) if origin.split(".")[0] == "redis":
                if any(name.name in CLIENTS | {"from_url", "*"} for name in names):
                    yield node.lineno
            case ast.Attribute(value=ast.Name(id="redis"), attr="from_url"):
                yield node.lineno
            case ast.Attribute(attr=attribute) if attribute in CLIENTS:
                yield node.lineno
