"""The audit: who changed what in the registry."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, Engine, select
from sqlalchemy.dialects.postgresql import insert

from registry.database.tables import audit as table


def audit(connection: Connection, actor: str, action: str, subject: str, detail: object) -> None:
    """Record an action in the transaction of `connection`; `detail` is JSON."""
    connection.execute(
        insert(table).values(actor=actor, action=action, subject=subject, detail=detail)
    )


class Serial(NamedTuple):
    """What every change of the registry moves: the number of the newest line of its audit.

    Also its time: a registry that was restored from a copy comes to the same numbers again.
    """

    id: int
    at: datetime


def serial(engine: Engine) -> Serial | None:
    """The serial of the registry, None of one in which nothing was recorded."""
    newest = select(table.c.id, table.c.at).order_by(table.c.id.desc()).limit(1)
    with engine.connect() as connection:
        found = connection.execute(newest).first()
    return None if found is None else Serial(found.id, found.at)
