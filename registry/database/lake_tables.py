"""The tables of the lake, as `registry.database.tables` describes the others.

tickwell.day_changes  how often rows of a day were stored, by who stores them
tickwell.day_scans    when the days of rows that are older than these counts were looked up
tickwell.lake_days    the days of sources that the lake has, and which changes of them
tickwell.lake_files   their files
tickwell.dropped_offsets  from which offsets on rows give whole states, where months were let go
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Date,
    DateTime,
    ForeignKeyConstraint,
    Integer,
    LargeBinary,
    Table,
    Text,
    Uuid,
)
from sqlalchemy.dialects.postgresql import JSONB

from registry.database.tables import NOW, metadata

day_changes = Table(
    "day_changes",
    metadata,
    Column("source", Text, primary_key=True),
    Column("day", Date, primary_key=True),
    Column("writer", Text, primary_key=True),
    Column("topic_id", Uuid, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("changes", BigInteger, nullable=False),
)

day_scans = Table(
    "day_scans",
    metadata,
    Column("scanned_at", DateTime(timezone=True), primary_key=True, server_default=NOW),
)

lake_days = Table(
    "lake_days",
    metadata,
    Column("source", Text, primary_key=True),
    Column("day", Date, primary_key=True),
    Column("changes", BigInteger, nullable=False),
    Column("watermarks", JSONB, nullable=False),
    Column("exported_at", DateTime(timezone=True), nullable=False, server_default=NOW),
    Column("dropped_at", DateTime(timezone=True)),
)

lake_files = Table(
    "lake_files",
    metadata,
    Column("source", Text, primary_key=True),
    Column("day", Date, primary_key=True),
    Column("schema_id", Integer, primary_key=True),
    Column("path", Text, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("sha256", LargeBinary, nullable=False),
    Column("columns", LargeBinary, nullable=False),
    Column("moving", LargeBinary),
    ForeignKeyConstraint(
        ["source", "day"], ["tickwell.lake_days.source", "tickwell.lake_days.day"]
    ),
)

dropped_offsets = Table(
    "dropped_offsets",
    metadata,
    Column("topic_id", Uuid, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("next_offset", BigInteger, nullable=False),
)
