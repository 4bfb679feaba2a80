"""The API keys that are valid: what is recorded in Postgres, and its JSON copy."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec
from psycopg2 import errorcodes
from sqlalchemy import Connection, Engine, func, select
from sqlalchemy.exc import ProgrammingError

from registry.database.tables import api_keys
from registry.errors import NewerRegistry, NoApiKeys


class Scope(StrEnum):
    """What a key allows. None of them implies another one."""

    READ = "read"
    """To read features and everything about them."""

    WRITE = "write"
    """To change what is recorded: versions, what is active."""

    ADMIN = "admin"
    """To make and revoke keys."""


class ApiKey(msgspec.Struct, frozen=True):
    """A key that is not revoked; it may have expired."""

    id: int
    name: str
    sha256: bytes
    scopes: tuple[str, ...]
    """Values of `Scope`, and those that a newer Tickwell may have."""

    expires_at: datetime | None = None

    def has_expired(self, now: datetime) -> bool:
        """Whether it is over."""
        return self.expires_at is not None and self.expires_at <= now


class ApiKeys(msgspec.Struct, frozen=True):
    """All keys that are not revoked, by id; the reading with the higher serial is the newer one."""

    serial: int
    keys: tuple[ApiKey, ...]


def load(engine: Engine) -> ApiKeys:
    """What is recorded, as one consistent reading.

    Raises `NoApiKeys` for a database that an earlier build has migrated, or none.
    """
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        try:
            return read(connection)
        except ProgrammingError as error:
            if getattr(error.orig, "pgcode", None) != errorcodes.UNDEFINED_TABLE:
                raise
            raise NoApiKeys from None


def read(connection: Connection) -> ApiKeys:
    """What is recorded, as the transaction of `connection` sees it."""
    changes = select(func.count(), func.count(api_keys.c.revoked_at)).select_from(api_keys)
    made, revoked = connection.execute(changes).one()
    valid = select(api_keys).where(api_keys.c.revoked_at.is_(None)).order_by(api_keys.c.id)
    return ApiKeys(
        serial=made + revoked,
        keys=tuple(
            ApiKey(row.id, row.name, bytes(row.sha256), tuple(row.scopes), row.expires_at)
            for row in connection.execute(valid)
        ),
    )


def encode(keys: ApiKeys) -> bytes:
    """A JSON copy of the keys; of the keys themselves it has their SHA-256."""
    return msgspec.json.encode(keys)


def decode(copy: bytes) -> ApiKeys:
    """The keys of their JSON copy. Raises `NewerRegistry` when it cannot be read."""
    try:
        return msgspec.json.decode(copy, type=ApiKeys)
    except msgspec.DecodeError as error:
        raise NewerRegistry(str(error)) from None
