"""The URLs of the stores and of the server, checked before anything connects."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from tickwell import masking

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

ENCODE = "in a password or a value write % as %25, @ as %40, & as %26, ? as %3F and = as %3D"

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
        for parameter, file in _files(value):
            shown = file if os.path.isabs(file) else f"of {parameter}"
            must(os.access(file, os.R_OK), name, f"the file {shown} cannot be read")
        if name.startswith("redis") and "?" in value:
            _check_redis(name, value, must)
    if settings.cluster and settings.redis:
        parts = urlsplit(settings.redis)
        database = parse_qs(parts.query).get("db", [parts.path.strip("/") or "0"])[0]
        must(
            parts.scheme != "unix" and database == "0",
            "redis",
            "with TICKWELL_CLUSTER it must be a node of a Redis Cluster, which has database 0 "
            "alone, and not a Unix socket",
        )


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
        must(False, "postgres", _reason(str(error), url))
        return
    hosts, database = parts.get("host", ""), parts.get("dbname", "")
    ports = parts.get("port", "").split(",")
    plain = "@" not in hosts + database and all(re.fullmatch("[0-9]*", port) for port in ports)
    must(plain, "postgres", UNREADABLE)


def _reason(said: str, url: str) -> str:
    """Why libpq does not take a URL, in words of ours: its own quote the URL and its password."""
    if "@" in url.partition("?")[2]:  # which may be a part of the password
        return UNREADABLE
    said = said.removeprefix("invalid dsn: ")
    if said.startswith("invalid percent-encoded token"):
        return "cannot be read by libpq: a % that encodes nothing is written %25"
    unknown = re.match('invalid URI query parameter: "([^"]*)"', said)
    name = masking.shown_parameter(unknown[1], url) if unknown else None
    if name:
        return f'cannot be read by libpq: invalid URI query parameter: "{name}"'
    return f"cannot be read by libpq: {ENCODE}"


def _check_redis(setting: str, url: str, must: Must) -> None:
    """What clients make of the parameters: those that do not connect take them or not."""
    from registry.redis_clients import OURS, refused_parameter

    name = refused_parameter(url)
    if name is None:
        return
    if "@" in url.partition("?")[2]:  # which may be a part of the password
        must(False, setting, UNREADABLE)
    shown = masking.shown_parameter(name, url)
    which = f'the parameter "{shown}"' if shown else "a parameter"
    if shown in OURS:
        must(False, setting, f"{which} is Tickwell's own to set, for each use: leave it out")
    must(False, setting, f"redis-py does not take {which}, or not with this value: {ENCODE}")


def _files(url: str) -> Iterable[tuple[str, str]]:
    """The files that a URL names, with the parameter, but for libpq's word for the system's own."""
    given = parse_qs(url.partition("?")[2])
    return ((name, path) for name in FILES for path in given.get(name, ()) if path != "system")
