"""The URLs of the stores and of the server, checked before anything connects."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from tickwell.settings import Settings

SCHEMES = {
    "redis": ("redis", "rediss", "unix"),
    "redis_hot": ("redis", "rediss", "unix"),
    "postgres": ("postgresql", "postgres"),
    "url": ("http", "https"),
}
FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "sslrootcert", "sslcert", "sslkey")
"""Parameters of a URL, redis-py's and libpq's, that name a file."""

UNREADABLE = "host and port cannot be read: in a password write / as %2F, @ as %40 and : as %3A"

Must = Callable[[bool, str, str], None]
"""Raises `SettingError` unless a condition holds: of a setting, by name, and what is wrong."""


def check(settings: Settings, must: Must) -> None:
    """Raises `SettingError` for a URL that a client would misread, or that names no file."""
    for name, schemes in SCHEMES.items():
        value: str = getattr(settings, name)
        must(
            not value or value.startswith(tuple(f"{scheme}://" for scheme in schemes)),
            name,
            f"must be a URL that begins with {schemes[0]}://",
        )
        if name == "postgres" and value:
            _check_postgres(value, must)
        must(_is_plain(value), name, UNREADABLE)
        for file in _files(value):
            must(os.access(file, os.R_OK), name, f"the file {file} cannot be read")


def _is_plain(url: str) -> bool:
    """Whether every client finds the same host and port: a / or @ in a password may hide them."""
    if url.startswith(tuple(SCHEMES["postgres"])):
        return True  # read by libpq alone
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises for what is no number
    except ValueError:  # brackets that hold no address, or no port after the colon
        return False
    return not (parts.netloc and "@" in parts.path + parts.fragment)


def _check_postgres(url: str, must: Must) -> None:
    """What libpq, the only reader of this URL, makes of it; it takes the first @ it meets."""
    from psycopg2 import ProgrammingError
    from psycopg2.extensions import parse_dsn

    try:
        parts = parse_dsn(url)
    except ProgrammingError as error:
        shown = "@" not in url.partition("?")[2]  # or it may be a part of the password
        reason = str(error).strip().removeprefix("invalid dsn: ")
        must(False, "postgres", f"cannot be read by libpq: {reason}" if shown else UNREADABLE)
        return
    hosts, database = parts.get("host", ""), parts.get("dbname", "")
    ports = parts.get("port", "").split(",")
    plain = "@" not in hosts + database and all(port.isdecimal() or not port for port in ports)
    must(plain, "postgres", UNREADABLE)


def _files(url: str) -> Iterable[str]:
    """The files that a URL names, but for libpq's word for the system's authorities."""
    given = parse_qs(url.partition("?")[2])
    return (path for name in FILES for path in given.get(name, ()) if path != "system")
