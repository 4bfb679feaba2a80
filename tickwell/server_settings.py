"""The settings that say who may ask the server, and how: API keys, TLS, and web pages of others."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING

from tickwell.errors import TickwellError

if TYPE_CHECKING:
    from registry.api_keys import ApiKeys
    from tickwell.certificate import ServedCertificate
    from tickwell.settings import Settings

AUTO, REQUIRED, NONE = "auto", "required", "none"
"""When a request needs an API key: unless the server listens on loopback alone, always, never."""

ORIGIN = re.compile(r"https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
"""What a browser calls the origin of a page: neither a path nor a / behind the host."""

Must = Callable[[bool, str, str], None]
"""Raises `SettingError` unless a condition holds: of a setting, by name, and what is wrong."""


def check(settings: Settings, must: Must) -> None:
    """Raises `SettingError` for what cannot be meant."""
    must(settings.keys in (AUTO, REQUIRED, NONE), "keys", f"must be {AUTO}, {REQUIRED} or {NONE}")
    must(
        bool(settings.tls_cert) or not settings.tls_key,
        "tls_key",
        "has no use while TICKWELL_TLS_CERT is not set",
    )
    origins = cors_origins(settings)
    must(
        origins == ("*",) or all(map(ORIGIN.fullmatch, origins)),
        "cors_origins",
        "must be origins as browsers name them, https://app.example or http://localhost:3000, "
        "separated by commas, or * alone for all pages",
    )


def cors_origins(settings: Settings) -> tuple[str, ...]:
    """The origins of the pages that may ask."""
    return tuple(filter(None, map(str.strip, settings.cors_origins.split(","))))


def needs_keys(settings: Settings) -> bool:
    """Whether requests need an API key.

    The address decides that the server listens on, and not the one that a request comes from: a
    proxy on this machine is on loopback, whoever asks it.
    """
    return settings.keys == REQUIRED or (settings.keys == AUTO and not is_loopback(settings.host))


def is_loopback(host: str) -> bool:
    """Whether who listens on `host` is reached from this machine alone."""
    try:
        addresses = {found[4][0] for found in socket.getaddrinfo(host or None, 0)}
    except (OSError, UnicodeError):
        return False  # nothing can listen there, and its own error says so
    return bool(host) and all(_is_loopback(ip_address(address)) for address in addresses)


def certificate(settings: Settings) -> ServedCertificate | None:
    """The certificate of a server that speaks HTTPS. Raises `CertificateError`."""
    if not settings.tls_cert:
        return None
    from tickwell.certificate import Files, ServedCertificate

    return ServedCertificate(Files(settings.tls_cert, settings.tls_key))


def check_has_keys(settings: Settings, hint: str = "") -> None:
    """Raises `TickwellError` where requests need a key and it is known that there is none.

    `hint` says more of how one is made.
    Where neither store answers, nothing is known, and the server may start before them: it refuses
    every request until it has read the keys.
    """
    if not needs_keys(settings):
        return
    known = _recorded(settings)
    if known is None:
        return
    now = datetime.now(UTC)
    if all(key.has_expired(now) for key in known.keys):
        why = (
            f"the server would listen on {settings.host}, which is reached from other machines"
            if settings.keys == AUTO
            else "requests are to need an API key"
        )
        state = "every API key has expired" if known.keys else "there is no API key yet"
        raise TickwellError(
            f"{why}, and {state}: make one with `tickwell keys create NAME --scope read`{hint}; or "
            "listen on 127.0.0.1; or, where something else decides who may ask, start it with "
            "--no-keys (TICKWELL_KEYS=none)"
        )


def _recorded(settings: Settings) -> ApiKeys | None:
    """The keys in Postgres, or else in Redis; None where neither says."""
    from contextlib import closing

    from sqlalchemy.exc import DBAPIError

    from registry import api_keys, redis_clients
    from registry.database.engine import connect
    from registry.errors import NoApiKeys, RegistryError
    from registry.formats.redis_keys import API_KEYS_KEY
    from registry.lifecycle.api_keys import FAILURES

    engine = connect(settings.postgres, connect_timeout=3, statement_timeout_ms=3_000)
    try:
        return api_keys.load(engine)
    except NoApiKeys:
        return api_keys.ApiKeys(0, ())
    except DBAPIError:
        pass
    finally:
        engine.dispose()
    try:
        with closing(redis_clients.throttle(settings.redis, settings.cluster)) as redis:
            copy = redis.get(API_KEYS_KEY)
        return None if copy is None else api_keys.decode(copy)
    except (*FAILURES, RegistryError):
        return None


def _is_loopback(address: IPv4Address | IPv6Address) -> bool:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback
