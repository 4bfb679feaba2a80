"""The tables of repairs, as `registry.database.tables` describes the others.

tickwell.repairs       who repaired a source, and when that became known
tickwell.repair_edits  the rejected ticks that were let in, or carried out
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Table,
    Text,
    Uuid,
    func,
    text,
)

from registry.database.tables import metadata, sources

CANCELLED = 3
"""The operation of a row that says that its tick does not count: no tick has it."""

repairs = Table(
    "repairs",
    metadata,
    Column("id", Integer, Identity(always=True), primary_key=True),
    Column("source", Text, ForeignKey(sources.c.name), nullable=False),
    Column(
        "started_at",
        DateTime(timezone=True),
        nullable=False,
        server_default=func.clock_timestamp(),
    ),
    Column("started_by", Text, nullable=False),
    Column("note", Text, nullable=False, server_default=text("''")),
    Column("known_at", BigInteger, nullable=False),
    Column("finished_at", DateTime(timezone=True)),
)

repair_edits = Table(
    "repair_edits",
    metadata,
    Column("topic_id", Uuid, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("offset", BigInteger, primary_key=True),
    Column("index", Integer, primary_key=True),
    Column("repair", Integer, ForeignKey(repairs.c.id), nullable=False),
    Column("kind", Text, nullable=False),
    Column("entity", Text, nullable=False),
    Column("outcome", Text),
    Column("event_time", BigInteger),
    Column("sequence", BigInteger),
    Column("settled_in", Integer),
    Column("settled_time", BigInteger),
    Column("settled_sequence", BigInteger),
    Column("open", Boolean, nullable=False, server_default=text("true")),
    Index("repair_edits_of_repair", "repair", "entity"),
    Index("repair_edits_settled", "repair", "settled_in"),
    Index("repair_edits_open", "repair", postgresql_where=text("open")),
)
