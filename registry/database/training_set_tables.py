"""The tables of training sets, as `registry.database.tables` describes the others.

tickwell.training_sets          those that are kept by name: how each was made, and its digests
tickwell.training_set_frames    the entity rows of each, a Parquet file in pieces
tickwell.training_set_entities  the first and the last moment of each entity in each of them
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from registry.database.tables import NOW, metadata

training_sets = Table(
    "training_sets",
    metadata,
    Column("name", Text, primary_key=True),
    Column("made", JSONB, nullable=False),
    Column("features", ARRAY(Text), nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("statuses", JSONB, nullable=False),
    Column("digests", JSONB, nullable=False),
    Column("sources", JSONB, nullable=False),
    Column("frame_bytes", BigInteger, nullable=False),
    Column("built_at", DateTime(timezone=True), nullable=False, server_default=NOW),
    Column("built_by", Text, nullable=False),
)

training_set_frames = Table(
    "training_set_frames",
    metadata,
    Column("name", Text, ForeignKey(training_sets.c.name, ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("content", LargeBinary, nullable=False),
)

training_set_entities = Table(
    "training_set_entities",
    metadata,
    Column("source", Text, primary_key=True),
    Column("entity", Text, primary_key=True),
    Column("name", Text, ForeignKey(training_sets.c.name, ondelete="CASCADE"), primary_key=True),
    Column("first", BigInteger, nullable=False),
    Column("last", BigInteger, nullable=False),
    Index("training_set_entities_of_name", "name"),
)
