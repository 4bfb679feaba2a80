"""What of a setting's value may be shown, in an error or a log: no password, and no part of one.

Only what has the form of an address or of a path is shown. What has another form may hold a
password in a place where nobody looks for it.
"""

from __future__ import annotations

import os
import re

MASK = "***"
SECRET = frozenset(
    {
        *("redis", "redis_hot", "postgres", "api_key"),
        *("kafka_password", "kafka_key_password", "schema_registry_password"),
    }
)
"""Settings that are never shown."""

FILES = (
    *("kafka_ca", "kafka_cert", "kafka_key", "schema_registry_ca"),
    *("url_ca", "tls_cert", "tls_key"),
)
MAY_HOLD_SECRET = SECRET | {"kafka", "url", "schema_registry", *FILES}
"""These, and the settings that people write a user or the text of a key into."""

SERVERS = re.compile(r"[\w.:/,\[\]\s+-]*")
"""Addresses with commas, and a scheme; neither @ nor what parameters are written with."""

HOST = re.compile(r"([\w.-]+|\[[0-9A-Fa-f:.]+\])?(:[0-9]+)?(/[^?#=&]*)?")
"""Host, port and path of a URL."""

PASSWORD = re.compile(r"pass|pwd|secret|token", re.IGNORECASE)


def shown(name: str, value: str) -> str:
    """The value of the setting `name`, or as much of it as may be shown."""
    if name in SECRET:
        return MASK
    if name == "kafka":
        return value if SERVERS.fullmatch(value) else MASK
    if name == "url":
        return _url(value)
    if name == "schema_registry":
        return value if all(map(_is_address, value.split(","))) else MASK
    if name in FILES:
        return _path(value, secret=name in ("kafka_key", "tls_key"))
    return value


def shown_file(name: str, path: str) -> str:
    """The value of `TICKWELL_<name>_FILE`, into which some write the secret itself."""
    return path if name not in MAY_HOLD_SECRET or _is_in_folder(path) else MASK


def shown_parameter(name: str, url: str) -> str | None:
    """The name of a parameter of a URL, or None where it may be a part of a password with a &."""
    before, found, _ = url.partition("?")[2].partition(f"{name}=")
    plain = re.fullmatch(r"[A-Za-z_]+", name) and re.search(rf"[?&]{name}=[^=&]", url)
    return name if found and plain and not PASSWORD.search(before) else None


def is_pem(value: str) -> bool:
    """Whether a value is the text of a key or a certificate and not the path of one."""
    return "-----BEGIN" in value


def _url(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url
    user, _, host = rest.rpartition("@")
    start = f"{scheme}://" if re.fullmatch("https?" if user else "[A-Za-z+]+", scheme) else ""
    masked = f"{MASK}@" if user or (scheme and not start) else ""
    return f"{start}{masked}{host if HOST.fullmatch(host) else MASK}"


def _is_address(url: str) -> bool:
    """Whether a URL is nothing but scheme, host, port and path."""
    scheme, _, rest = url.strip().rpartition("://")
    return scheme in ("", "http", "https") and HOST.fullmatch(rest) is not None


def _path(path: str, *, secret: bool) -> str:
    """The path of a file; of a key only if it looks like one, as base64 may be a path as well."""
    if is_pem(path) or len(path.split()) > 1:
        return MASK
    named = not secret or not path or "." in path or os.path.exists(path) or _is_in_folder(path)
    return path if named else MASK


def _is_in_folder(path: str) -> bool:
    """Whether a path is absolute and names something in a folder that there is; / is in all."""
    folder = os.path.normpath(os.path.dirname(path))
    return os.path.isabs(path) and folder.strip("/") != "" and os.path.isdir(folder)
