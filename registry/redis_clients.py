"""Every client of Redis is made here: one function for each use, which states its limits.

Nothing is left to the library's defaults, because they differ between its major versions: redis-py
8 has timeouts of 5 s and, except for clients made from a URL, retries ten times; redis-py 6 has no
timeouts and retries three times.

No client retries. A sink repeats the whole run, and a retry below it could store the run twice.
Readers do better than to wait: they answer `unavailable`, read the other tier, or read again a
second later.

A client connects at its first command, but a client of a cluster when it is made: it then raises
what `redis.exceptions.RedisClusterException` and `RedisError` cover. A server reads a cluster with
a client for each node (`serving.stores.cluster_reads`), which is made as one of a single server.
Rows of a single server are read by a connection of our own (`serving.stores.row_link`), which takes
its limits, and all that a URL says, from here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from ssl import SSLContext
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one client, by the names that redis-py has for them."""

    socket_timeout: float
    """Seconds for the answer to a command."""

    socket_connect_timeout: float
    """Seconds to connect."""

    health_check_interval: int = 0
    """Seconds without use after which a connection is tested before its next command; 0 for never.

    A cluster's client tests none: redis-py does not pass the interval on to the nodes.
    """

    max_connections: int = 100
    """Connections at the same time, to each node of a cluster; one more is an error."""


WARM = Limits(5.0, 5.0, health_check_interval=15)
"""Of a sink: a script takes milliseconds, and more than this means that the server hangs."""

WARM_CLUSTER = Limits(1.5, 1.5)
"""The same for one node: a call that fails asks the other nodes, in turn, where its slot is now."""

HEARTBEAT = Limits(0.7, 0.7, health_check_interval=15)
"""Below the second between heartbeats: one Redis that hangs must not delay those to the others."""

HEARTBEAT_CLUSTER = Limits(0.7, 0.7)

FEED = Limits(0.5, 0.5)
"""Of a worker that feeds hot, within the second that a mark lives; the same to look at warm."""

THROTTLE = Limits(1.0, 1.0)
"""Of a replay, which reads the heartbeats of the live workers between two runs."""

PROBE = Limits(1.0, 5.0)
"""Of a supervisor, which asks whether a server that it started answers."""

SURVEY = Limits(5.0, 5.0)
"""Of a command that looks at what a store holds; to a cluster it is one node's."""

THROTTLE_CLUSTER = Limits(0.7, 0.7)
"""The same for one node."""

ROWS = Limits(1.0, 1.0, max_connections=16)
"""Of the requests of one server process. An HMGET of 5,000 rows takes a few milliseconds."""

HOT = Limits(0.3, 0.3)
"""The same of the hot tier: what it does not answer soon is read in warm, in the same request."""

WATCH = Limits(1.0, 1.0)
"""Of a server's background tasks, which read heartbeats and the catalog every second."""


TAKEN = frozenset(
    {
        *("db", "username", "password", "client_name", "protocol", "socket_keepalive"),
        *("ssl_ca_certs", "ssl_ca_path", "ssl_ca_data", "ssl_certfile", "ssl_keyfile"),
        *("ssl_password", "ssl_cert_reqs", "ssl_check_hostname", "ssl_min_version", "ssl_ciphers"),
        *("ssl_include_verify_flags", "ssl_exclude_verify_flags"),
    }
)
"""The parameters that a URL may have: where a server is, who the user is, and how TLS is checked.
What else redis-py takes from a URL would win over the limits here, or is an object and no text."""

OURS = frozenset(
    {
        *(one.name for one in fields(Limits)),
        *("timeout", "retry", "retry_on_timeout", "retry_on_error", "socket_read_size"),
        *("decode_responses", "encoding", "encoding_errors", "legacy_responses"),
    }
)
"""The parameters that decide how long and how often a client tries, and how it reads answers."""


def warm(url: str, cluster: bool = False) -> Any:
    """A sink's client of the Redis, or of the Redis Cluster, that holds every entity."""
    return _cluster(url, WARM_CLUSTER) if cluster else _single(url, WARM)


def heartbeat(url: str, cluster: bool = False) -> Any:
    """A worker's client to write its heartbeats with."""
    return _cluster(url, HEARTBEAT_CLUSTER) if cluster else _single(url, HEARTBEAT)


def feed(url: str, cluster: bool = False) -> Any:
    """A worker's client to feed hot with, or to look whether warm is as the worker left it."""
    return _cluster(url, FEED) if cluster else _single(url, FEED)


def throttle(url: str, cluster: bool = False) -> Any:
    """A replay's client to read heartbeats with."""
    return _cluster(url, THROTTLE_CLUSTER) if cluster else _single(url, THROTTLE)


def probe(url: str) -> Any:
    """A supervisor's client, to ask whether a server answers."""
    return _single(url, PROBE)


def survey(url: str, cluster: bool = False) -> Any:
    """A command's client, to look at what a store holds."""
    return _cluster(url, SURVEY) if cluster else _single(url, SURVEY)


def rows(url: str) -> Any:
    """A server's asyncio client to read rows with; a command waits for a free connection."""
    pool: Any = redis.asyncio.BlockingConnectionPool.from_url(
        url, timeout=ROWS.socket_timeout, retry=AsyncRetry(NoBackoff(), 0), **asdict(ROWS)
    )
    return redis.asyncio.Redis.from_pool(pool)


def watch(url: str) -> Any:
    """A server's asyncio client to read heartbeats and the catalog with."""
    return redis.asyncio.Redis.from_url(url, retry=AsyncRetry(NoBackoff(), 0), **asdict(WATCH))


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """What a connection of our own needs to know of one server: all that `TAKEN` lists."""

    host: str
    port: int
    path: str | None
    """The path of a Unix socket, in place of host and port."""

    keepalive: Mapping[int, Any] | None
    """The options of TCP's keepalive, by number; None where connections have no keepalive."""

    tls: Callable[[], SSLContext] | None = field(repr=False)
    """Makes the context of one connection from files as they are now, or raises OSError or
    ValueError; None without TLS."""

    handshake: tuple[tuple[str, ...], ...] = field(repr=False)
    """The commands that come first, with the password. The answer to each must be OK."""

    @property
    def address(self) -> str:
        """The address as people read it."""
        return self.path or _joined(self.host, self.port)


def link_options(url: str) -> LinkOptions:
    """What redis-py, which parses the URL, would make a server's connection to read rows with.

    `protocol` alone is not taken over: answers are read as RESP2, in which values are the same.
    Raises ValueError for a URL that redis-py cannot read.
    """
    pool = rows(url).connection_pool
    known = pool.make_connection()
    is_local = isinstance(known, redis.asyncio.UnixDomainSocketConnection)
    is_kept = not is_local and known.socket_keepalive
    is_secret = isinstance(known, redis.asyncio.SSLConnection)
    commands: list[tuple[str, ...]] = []
    if known.username:
        commands.append(("AUTH", known.username, known.password or ""))
    elif known.password:
        commands.append(("AUTH", known.password))
    if known.client_name:
        commands.append(("CLIENT", "SETNAME", known.client_name))
    if known.db:
        commands.append(("SELECT", str(known.db)))
    return LinkOptions(
        host="" if is_local else known.host,
        port=0 if is_local else known.port,
        path=known.path if is_local else None,
        keepalive=known.socket_keepalive_options if is_kept else None,
        tls=(lambda: pool.make_connection().ssl_context.get()) if is_secret else None,
        handshake=tuple(commands),
    )


def address_of(url: str) -> str:
    """The address that a URL names, `host:port`."""
    parts = urlsplit(url)
    return _joined(parts.hostname or "127.0.0.1", parts.port or 6379)


def at_address(url: str, address: str) -> str:
    """The URL of another node of a cluster: all but the address, `host:port`, is as in `url`."""
    parts = urlsplit(url)
    user, sign, _ = parts.netloc.rpartition("@")
    host, _, port = address.rpartition(":")
    return parts._replace(netloc=f"{user}{sign}{_joined(host.strip('[]'), int(port))}").geturl()


def refused_parameter(url: str) -> str | None:
    """The name of the first parameter of a URL that not every client can be made with.

    Both kinds of clients are made, without a connection: asyncio's take fewer parameters.
    """
    address, _, parameters = url.partition("?")
    for name, value in parse_qsl(parameters):
        if name not in TAKEN:
            return name
        alone = f"{address}?{urlencode({name: value})}"
        try:
            for client in (probe(alone), watch(alone)):
                client.connection_pool.make_connection()
        except Exception:  # redis-py checks few of them, and fails in many ways at the others
            return name
    return None


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _single(url: str, limits: Limits) -> Any:
    return redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0), **asdict(limits))


def _cluster(url: str, limits: Limits) -> Any:
    return redis.RedisCluster.from_url(url, retry=Retry(NoBackoff(), 0), **asdict(limits))
