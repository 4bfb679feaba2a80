"""The settings that say how Kafka is reached, checked before anything connects."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

from tickwell import masking
from tickwell.errors import SettingError

if TYPE_CHECKING:
    from pipelines.kafka.connection import KafkaConnection, Mechanism, Protocol
    from tickwell.settings import Settings

PREFIX = "TICKWELL_"
SECURITY = (
    *("kafka_security", "kafka_mechanism", "kafka_username", "kafka_password"),
    *("kafka_ca", "kafka_cert", "kafka_key", "kafka_key_password"),
)
"""Settings that belong to the address in TICKWELL_KAFKA."""

SECURITY_OF_SCHEME = {
    "plaintext": "PLAINTEXT",
    "tcp": "PLAINTEXT",
    "ssl": "SSL",
    "tls": "SSL",
    "sasl_plaintext": "SASL_PLAINTEXT",
    "sasl_ssl": "SASL_SSL",
    "kafka+ssl": "SSL",
}
"""What people write before an address, in lower case, and the security that they mean."""

ADDRESS = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):[0-9]+")


def connection_of(settings: Settings) -> KafkaConnection:
    """The value that is passed down; what `check` has checked."""
    from pipelines.kafka.connection import KafkaConnection

    return KafkaConnection(
        servers=",".join(filter(None, map(str.strip, settings.kafka.split(",")))),
        protocol=cast("Protocol", settings.kafka_security.upper()),
        mechanism=cast("Mechanism", settings.kafka_mechanism.upper()),
        username=settings.kafka_username,
        password=settings.kafka_password,
        ca=settings.kafka_ca,
        certificate=settings.kafka_cert,
        key=settings.kafka_key,
        key_password=settings.kafka_key_password,
    )


def check(settings: Settings) -> None:
    """Raises `SettingError` for an address or a combination that cannot work."""
    _check_servers(settings.kafka)
    security = settings.kafka_security.upper()
    mechanism = settings.kafka_mechanism.upper()
    if security not in ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"):
        raise _error(
            settings, "kafka_security", "must be PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL"
        )
    if mechanism not in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"):
        raise _error(settings, "kafka_mechanism", "must be PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512")
    _check_user(settings, security)
    _check_files(settings, security)


def _check_servers(servers: str) -> None:
    """The value as a whole comes first: in a password there may be a comma."""
    shown = masking.shown("kafka", servers)
    if shown != servers:
        after = servers.rpartition("@")[2].strip().rstrip("/") if "@" in servers else ""
        address = after if ADDRESS.fullmatch(after) and _is_port(after) else "host:9092"
        raise SettingError(
            f"{PREFIX}KAFKA",
            shown,
            f"must be host:port, or several with commas, and no URL: {_advice(servers, address)}",
        )
    for server in filter(None, servers.split(",")):
        _check_server(server)


def _check_server(server: str) -> None:
    variable = f"{PREFIX}KAFKA"
    if "://" in server:
        raise SettingError(variable, server, f"is no URL: {_advice(server, _address(server))}")
    host = server.strip().rpartition(":")[0]
    if not (host and "/" not in host and _is_port(server)):
        raise SettingError(variable, server, "must be host:port, or several with commas")


def _is_port(server: str) -> bool:
    """Whether an address ends in a port, in ASCII: `isdecimal` takes digits of any script."""
    port = server.strip().rpartition(":")[2]
    return re.fullmatch("[0-9]{1,5}", port) is not None and 0 < int(port) < 65536


def _advice(url: str, address: str) -> str:
    """What to write instead of a URL; of its scheme only what it means."""
    scheme = url.partition("://")[0].strip().lower() if "://" in url else ""
    secured = SECURITY_OF_SCHEME.get(scheme)
    also = f", and {PREFIX}KAFKA_SECURITY={secured}" if secured else ""
    return (
        f"write {PREFIX}KAFKA={address}{also}; a user goes into {PREFIX}KAFKA_USERNAME and "
        f"{PREFIX}KAFKA_PASSWORD"
    )


def _address(url: str) -> str:
    """The host and port of a URL, as far as they can be read."""
    try:
        parts = urlsplit("//" + url.partition("://")[2].strip())
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    return f"{host or 'host'}:{port or 9092}"


def _check_user(settings: Settings, security: str) -> None:
    has_user = security.startswith("SASL_")
    for name in ("kafka_username", "kafka_password"):
        given = bool(getattr(settings, name))
        if has_user and not given:
            raise _error(settings, name, f"must be set: {PREFIX}KAFKA_SECURITY is {security}")
        if given and not has_user:
            raise _error(
                settings,
                name,
                f"has no use while {PREFIX}KAFKA_SECURITY is {security}: set it to SASL_SSL, or to "
                "SASL_PLAINTEXT without encryption",
            )


def _check_files(settings: Settings, security: str) -> None:
    files = ("kafka_ca", "kafka_cert", "kafka_key")
    for name in files:
        path = getattr(settings, name)
        if masking.is_pem(path):
            raise SettingError(
                PREFIX + name.upper(), "-----BEGIN…", "must be the path of the file, not its text"
            )
        if path and not security.endswith("SSL"):
            raise _error(
                settings,
                name,
                f"has no use while {PREFIX}KAFKA_SECURITY is {security}: set it to SSL, or to "
                "SASL_SSL with a user",
            )
    if settings.kafka_key and not settings.kafka_cert:
        raise _error(settings, "kafka_key", f"needs {PREFIX}KAFKA_CERT beside it")
    if not security.endswith("SSL"):
        return
    if settings.kafka_ca:
        _try(settings, "kafka_ca", lambda: ssl.create_default_context(cafile=settings.kafka_ca))
    if settings.kafka_cert:
        _try(settings, "kafka_cert", lambda: _load_pair(settings))


def _load_pair(settings: Settings) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_cert_chain(
        settings.kafka_cert, settings.kafka_key or None, lambda: settings.kafka_key_password
    )


def _try(settings: Settings, name: str, load: Callable[[], object]) -> None:
    """Raises `SettingError` where a file cannot be used for TLS."""
    try:
        load()
    except ssl.SSLError as error:
        why = error.reason or error.strerror or "is no PEM file"
        raise _error(settings, name, f"cannot be used: {why}") from None
    except OSError as error:
        raise _error(settings, name, f"cannot be read: {error.strerror}") from None


def _error(settings: Settings, name: str, what: str) -> SettingError:
    shown = masking.shown(name, getattr(settings, name))
    return SettingError(PREFIX + name.upper(), shown, what)
