"""The tables of verification beside work, as `registry.database.tables` describes the others.

tickwell.verified_to        the entity of each source up to which a round has come
tickwell.found_differences  what differs, until somebody has seen to it
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, DateTime, LargeBinary, Table, Text
from sqlalchemy.dialects.postgresql import ARRAY

from registry.database.tables import NOW, metadata

verified_to = Table(
    "verified_to",
    metadata,
    Column("source", Text, primary_key=True),
    Column("entity", Text, nullable=False),
)

found_differences = Table(
    "found_differences",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("place", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("entity", ARRAY(Text), nullable=False),
    Column("event_time", BigInteger),
    Column("sequence", BigInteger),
    Column("feature", Text),
    Column("found", Text, nullable=False),
    Column("expected", Text, nullable=False),
    Column("found_at", DateTime(timezone=True), nullable=False, server_default=NOW),
)
