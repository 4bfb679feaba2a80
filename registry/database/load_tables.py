"""The tables of loads, as `registry.database.tables` describes the others.

tickwell.loads            each load of files into history, and what it was made of
tickwell.load_partitions  how far it is in each of its partitions, and what it has counted
tickwell.load_overlaps    entities of which it meets rows that were there before

A loaded row is in `tickwell.feature_rows` under the negative of its row schema's id.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from registry.database.tables import NOW, metadata

loads = Table(
    "loads",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("source", Text, nullable=False),
    Column("schema_id", Integer, nullable=False),
    Column("rules", Integer, nullable=False),
    Column("files", JSONB, nullable=False),
    Column("mapping", JSONB, nullable=False),
    Column("first_time", BigInteger),
    Column("last_time", BigInteger),
    Column("began_at", DateTime(timezone=True), nullable=False, server_default=NOW),
    Column("began_by", Text, nullable=False),
    Column("finished_at", DateTime(timezone=True)),
    Column("forgotten_at", DateTime(timezone=True)),
    Index("loads_of_source", "source", "schema_id"),
)

load_partitions = Table(
    "load_partitions",
    metadata,
    Column("load", Uuid, ForeignKey(loads.c.id), primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("next_offset", BigInteger, nullable=False, server_default=text("0")),
    Column("ends", BigInteger, nullable=False),
    Column("rows", BigInteger, nullable=False, server_default=text("0")),
    Column("passed_over", BigInteger, nullable=False, server_default=text("0")),
    Column("rejected", BigInteger, nullable=False, server_default=text("0")),
)

load_overlaps = Table(
    "load_overlaps",
    metadata,
    Column("load", Uuid, ForeignKey(loads.c.id), primary_key=True),
    Column("entity", Text, primary_key=True),
    Column("first_time", BigInteger, nullable=False),
    Column("last_time", BigInteger, nullable=False),
)
