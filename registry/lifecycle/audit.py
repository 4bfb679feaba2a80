"""The audit: who changed what in the registry."""

from __future__ import annotations

from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from registry.database.tables import audit as table


def audit(connection: Connection, actor: str, action: str, subject: str, detail: object) -> None:
    """Record an action in the transaction of `connection`; `detail` is JSON."""
    connection.execute(
        insert(table).values(actor=actor, action=action, subject=subject, detail=detail)
    )
