"""The audit: who changed what in the registry."""

from __future__ import annotations

from sqlalchemy import Connection, Engine, func, select
from sqlalchemy.dialects.postgresql import insert

from registry.database.tables import audit as table


def audit(connection: Connection, actor: str, action: str, subject: str, detail: object) -> None:
    """Record an action in the transaction of `connection`; `detail` is JSON."""
    connection.execute(
        insert(table).values(actor=actor, action=action, subject=subject, detail=detail)
    )


def serial(engine: Engine) -> int:
    """A number that every change of the registry moves, as each leaves a line in the audit."""
    with engine.connect() as connection:
        newest: int = connection.execute(
            select(func.coalesce(func.max(table.c.id), 0))
        ).scalar_one()
        return newest
