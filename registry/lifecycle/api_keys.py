"""API keys are made, listed and revoked: in Postgres, with an audit, and then in Redis.

A server believes Postgres while that answers, and the copy in Redis while it does not. A revocation
also goes into a set in Redis which counts whatever else a server has read, so that it holds while
Postgres is away or a copy is older. It is recorded in Postgres first, which remembers it when Redis
is emptied, and where one store does not answer it is made in the other one, and an error says so.

Of Redis a function is passed that makes a client (`registry.redis_clients`), as one of a cluster
connects when it is made.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from psycopg2 import errorcodes
from redis.exceptions import RedisClusterException, RedisError
from sqlalchemy import Connection, Engine, func, insert, select, text, update
from sqlalchemy.exc import DBAPIError, ProgrammingError

from registry import api_keys
from registry.api_keys import ApiKeys, Scope
from registry.database.tables import api_keys as table
from registry.errors import (
    ApiKeyHalfRevoked,
    ApiKeyNameTaken,
    InvalidApiKey,
    NoApiKeys,
    RegistryError,
    UnknownApiKey,
)
from registry.formats import api_key
from registry.formats.redis_keys import API_KEYS_KEY, REVOKED_KEY
from registry.lifecycle.audit import By, audit

LOCK = 7_242_019_004
"""Advisory lock: of two that change keys at once, the later one copies what both have changed."""

NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")
"""Names of keys. They begin with a letter, so that none is taken for a number."""

LONGEST = timedelta(days=3_650)

FAILURES = (RedisError, RedisClusterException, OSError)
"""What a client of Redis raises when its server does not answer."""


OpenRedis = Callable[[], Any]
"""Makes a client of a single server or of a cluster."""


class Recorded(NamedTuple):
    """What is known of a key, also after it was revoked."""

    id: int
    name: str
    fingerprint: str
    scopes: tuple[str, ...]
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None
    revoked_by: str | None


class Made(NamedTuple):
    """A new key: this is the only place where its text ever is."""

    text: str
    recorded: Recorded

    def __repr__(self) -> str:
        return f"Made(recorded={self.recorded})"


def create(
    engine: Engine,
    name: str,
    scopes: Collection[Scope],
    actor: str,
    valid_for: timedelta | None = None,
) -> Made:
    """Record a new key in Postgres; `publish` makes it known to servers that cannot read that.

    Raises `InvalidApiKey`, `ApiKeyNameTaken`.
    """
    _check(name, scopes, valid_for)
    made = api_key.make()
    values = {
        "name": name,
        "sha256": api_key.digest(made.encode()),
        "scopes": [scope.value for scope in Scope if scope in scopes],
        "created_by": actor,
        "expires_at": None if valid_for is None else datetime.now(UTC) + valid_for,
    }
    with _alone(engine) as connection:
        known = connection.execute(
            select(table.c.expires_at).where(table.c.name == name, table.c.revoked_at.is_(None))
        ).first()
        if known is not None:
            expires = known.expires_at
            raise ApiKeyNameTaken(name, expires is not None and expires <= datetime.now(UTC))
        row = connection.execute(insert(table).values(**values).returning(table)).one()
        recorded = _recorded(row)
        detail = {"id": recorded.id, "scopes": values["scopes"], "expires_at": _text(recorded)}
        audit(connection, By(actor), "create key", name, detail)
    return Made(made, recorded)


def listed(engine: Engine, revoked: bool = False) -> list[Recorded]:
    """The keys by id, those that have expired too, and with `revoked` also those."""
    wanted = select(table).order_by(table.c.id)
    if not revoked:
        wanted = wanted.where(table.c.revoked_at.is_(None))
    with _alone(engine) as connection:
        return [_recorded(row) for row in connection.execute(wanted)]


def publish(engine: Engine, open_redis: OpenRedis) -> None:
    """Copy to Redis what is recorded, so that servers can start without Postgres.

    Raises `FAILURES`.
    """
    with _alone(engine) as connection, closing(open_redis()) as redis:
        redis.set(API_KEYS_KEY, api_keys.encode(api_keys.read(connection)))


def revoke(engine: Engine, open_redis: OpenRedis, which: str, actor: str) -> Recorded:
    """Revoke a key by name or number, in both stores; once more is no error, and completes it.

    Raises `UnknownApiKey`, and `ApiKeyHalfRevoked` where one store did not take it.
    """
    try:
        recorded, sha256 = _revoke_recorded(engine, which, actor)
    except DBAPIError as error:
        raise _revoked_in_redis(open_redis, which, error) from None
    try:
        with closing(open_redis()) as redis:
            redis.sadd(REVOKED_KEY, sha256)
        publish(engine, open_redis)
    except FAILURES as error:
        raise ApiKeyHalfRevoked(
            f"key {recorded.id} {recorded.name!r} is revoked in Postgres, and servers that reach "
            f"it refuse the key within a second; Redis did not take it ({error}): run the same "
            "command again once it answers, or servers that reach Redis alone go on to take the key"
        ) from None
    except DBAPIError as error:
        raise ApiKeyHalfRevoked(
            f"key {recorded.id} {recorded.name!r} is revoked in Postgres and in Redis, and servers "
            "refuse it within a second; only the copy of all keys in Redis is that of before, as "
            f"Postgres does not answer any more ({_reason(error)}): run the same command again "
            "once it does"
        ) from None
    return recorded


def _revoke_recorded(engine: Engine, which: str, actor: str) -> tuple[Recorded, bytes]:
    """The key as it is revoked now or was before, and its SHA-256."""
    # A revoked key is found by its name only where no other one has that.
    newest = table.c.revoked_at.desc().nulls_first()
    with _alone(engine) as connection:
        named = table.c.id == int(which) if _is_number(which) else table.c.name == which
        found = connection.execute(select(table).where(named).order_by(newest)).first()
        if found is None:
            raise UnknownApiKey(which)
        if found.revoked_at is None:
            found = connection.execute(
                update(table)
                .where(table.c.id == found.id)
                .values(revoked_at=func.now(), revoked_by=actor)
                .returning(table)
            ).one()
            audit(connection, By(actor), "revoke key", found.name, {"id": found.id})
        return _recorded(found), bytes(found.sha256)


def _revoked_in_redis(open_redis: OpenRedis, which: str, why: DBAPIError) -> ApiKeyHalfRevoked:
    """Revoke a key in Redis alone, and say what that is worth while Postgres does not know it."""
    reason = _reason(why)
    again = "run the same command again once it answers"
    try:
        with closing(open_redis()) as redis:
            copy = redis.get(API_KEYS_KEY)
            known = ApiKeys(0, ()) if copy is None else api_keys.decode(copy)
            found = [key for key in known.keys if which in (key.name, str(key.id))]
            for key in found:
                redis.sadd(REVOKED_KEY, key.sha256)
    except (*FAILURES, RegistryError) as error:
        return ApiKeyHalfRevoked(
            f"nothing is revoked: neither Postgres ({reason}) nor Redis ({error}) took it, and "
            "servers go on to take the key: run the same command again, or stop them"
        )
    if not found:
        return ApiKeyHalfRevoked(
            f"nothing is revoked: Postgres did not take it ({reason}), and the copy in Redis has "
            f"no key with the name or the number {which!r}: {again}"
        )
    return ApiKeyHalfRevoked(
        f"key {found[0].id} {found[0].name!r} is revoked in Redis, and servers that reach it "
        f"refuse the key within a second; Postgres did not take it ({reason}): {again}, or the key "
        "is valid again where Redis is emptied"
    )


def _reason(error: DBAPIError) -> str:
    """What Postgres or its driver says, in one line."""
    return " ".join(str(error.orig).split())


def _check(name: str, scopes: Collection[Scope], valid_for: timedelta | None) -> None:
    if not NAME.fullmatch(name):
        raise InvalidApiKey(
            f"{name!r} is no name for a key: it has 1 to 64 letters, digits, dots, dashes and "
            "underscores (ASCII), and begins with a letter"
        )
    if not scopes:
        raise InvalidApiKey(
            f"a key needs a scope: --scope {', --scope '.join(Scope)}, one or several"
        )
    if valid_for is not None and not timedelta(0) < valid_for <= LONGEST:
        raise InvalidApiKey(f"a key is valid for more than 0 and at most {LONGEST.days} days")


def _is_number(which: str) -> bool:
    return which.isascii() and which.isdigit() and int(which) < 2**31


@contextmanager
def _alone(engine: Engine) -> Iterator[Connection]:
    """A transaction in which nobody else changes keys. Raises `NoApiKeys`."""
    try:
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
            yield connection
    except ProgrammingError as error:
        if getattr(error.orig, "pgcode", None) != errorcodes.UNDEFINED_TABLE:
            raise
        raise NoApiKeys from None


def _text(recorded: Recorded) -> str | None:
    return None if recorded.expires_at is None else recorded.expires_at.isoformat()


def _recorded(row: Any) -> Recorded:
    return Recorded(
        id=row.id,
        name=row.name,
        fingerprint=api_key.fingerprint(bytes(row.sha256)),
        scopes=tuple(row.scopes),
        created_at=row.created_at,
        created_by=row.created_by,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        revoked_by=row.revoked_by,
    )
