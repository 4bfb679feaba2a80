"""The tables of backfills, as `registry.database.tables` describes the others.

tickwell.backfills          the backfill of each version that had one, and how far it has come
tickwell.backfill_ranges    the offsets of each partition whose ticks it is of
tickwell.backfill_reads     the offsets that one from Kafka has read
tickwell.backfilled_blocks  values of consecutive ticks of an entity
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY

from registry.database.tables import NOW, metadata

backfills = Table(
    "backfills",
    metadata,
    Column("id", Integer, Identity(always=True), primary_key=True),
    Column("name", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("entity", Text),
    Column("event_time", BigInteger),
    Column("sequence", BigInteger),
    Column("entities", BigInteger, nullable=False, server_default=text("0")),
    Column("ticks", BigInteger, nullable=False, server_default=text("0")),
    Column("started_at", DateTime(timezone=True), nullable=False, server_default=NOW),
    Column("started_by", Text, nullable=False),
    Column("finished_at", DateTime(timezone=True)),
    Column("ticks_from", Text, nullable=False, server_default=text("'postgres'")),
    Column("of_loads", Boolean, nullable=False, server_default=text("false")),
    UniqueConstraint("name", "version"),
)

backfill_ranges = Table(
    "backfill_ranges",
    metadata,
    Column("backfill", Integer, ForeignKey(backfills.c.id), primary_key=True),
    Column("topic_id", Uuid, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("from_offset", BigInteger, primary_key=True),
    Column("to_offset", BigInteger, nullable=False),
)

backfill_reads = Table(
    "backfill_reads",
    metadata,
    Column("backfill", Integer, ForeignKey(backfills.c.id), primary_key=True),
    Column("topic_id", Uuid, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("from_offset", BigInteger, primary_key=True),
    Column("next_offset", BigInteger, nullable=False),
)

backfilled_blocks = Table(
    "backfilled_blocks",
    metadata,
    Column("backfill", Integer, primary_key=True),
    Column("entity", Text, primary_key=True),
    Column("first_event_time", BigInteger, primary_key=True),
    Column("first_sequence", BigInteger, primary_key=True),
    Column("last_event_time", BigInteger, nullable=False),
    Column("unit", BigInteger, nullable=False),
    Column("steps", ARRAY(Integer)),
    Column("long_steps", ARRAY(BigInteger)),
    Column("values", ARRAY(Double), nullable=False),
    Column("statuses", LargeBinary),
)
