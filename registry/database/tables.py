"""The tables as SQLAlchemy describes them; `registry.database.migrations` creates them.

    tickwell.feature_rows      one row a tick, source and row schema, partitioned by event time
    tickwell.entities          every entity and the partition that is its home
    tickwell.watermarks        the next offset to read of each partition of a topic incarnation
    tickwell.log_ends          the end of each partition's log, and when the broker named it
    tickwell.rejected_ticks    every tick that was rejected, with its bytes and the reason
    tickwell.replays           the progress of each replay in each partition
    tickwell.topics            incarnations of topics, with their number of partitions
    tickwell.source_rules      each definition that a source has had
    tickwell.rules_starts      the offset of each partition from which a changed one holds
    tickwell.schema_starts     the offset of each partition from which rows are in a row schema
    tickwell.carried_over      partitions of which every entity has a row in a row schema
    tickwell.api_keys          the SHA-256 of each API key, what it allows, who made and revoked it
    tickwell.serial            one number, which every change of the catalog moves
    tickwell.feature_versions  each version of a feature, and whether it was given up
    tickwell.active_versions   what the name of a feature means now
    tickwell.activations       each move of a name from one version to another one
    tickwell.feature_sets      sets of pinned versions
    tickwell.set_models        the models that read a set
    tickwell.experiments       which versions a name means for whom, and when
    tickwell.audit             who changed what, when, from what to what
    tickwell.active_columns    where rows have the active version of a feature, for the SQL views
    tickwell.usage             how many values of a version a consumer has read on a day
    tickwell.usage_batches     the last batch of such counts that each server process has added
    tickwell.search_documents  one a feature, and in search_words the words of all
    tickwell.sources, row_schemas

Those of backfills and of loads are described in `backfill_tables` and `load_tables`.
Times of ticks are bigint nanoseconds UTC, times of Tickwell's own work are timestamptz.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TSVECTOR

SCHEMA = "tickwell"
metadata = MetaData(schema=SCHEMA)
NOW = func.now()

feature_rows = Table(
    "feature_rows",
    metadata,
    Column("schema_id", Integer, nullable=False),
    Column("entity", Text, nullable=False),
    Column("event_time", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("revision", SmallInteger, nullable=False),
    Column("tick_time", BigInteger, nullable=False),
    Column("seq", BigInteger),
    Column("op", SmallInteger, nullable=False),
    Column("fields", ARRAY(Double), nullable=False),
    Column("features", ARRAY(Double), nullable=False),
    Column("status", LargeBinary, nullable=False),
    Column("known_at", BigInteger, nullable=False),
    Column("topic_id", Uuid, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("index", Integer, nullable=False),
    Column("seq_text", Text),
    PrimaryKeyConstraint("entity", "schema_id", "event_time", "sequence", "revision"),
    postgresql_partition_by="RANGE (event_time)",
)

entities = Table(
    "entities",
    metadata,
    Column("source", Text, primary_key=True),
    Column("entity", Text, primary_key=True),
    Column("topic_id", Uuid, nullable=False),
    Column("partition", Integer, nullable=False),
)

watermarks = Table(
    "watermarks",
    metadata,
    Column("topic_id", Uuid, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("topic", Text, nullable=False),
    Column("next_offset", BigInteger, nullable=False),
    Column("known_at", BigInteger),
)

log_ends = Table(
    "log_ends",
    metadata,
    Column("topic_id", Uuid, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("end_offset", BigInteger, nullable=False),
    Column("reported_at", BigInteger, nullable=False),
)

replays = Table(
    "replays",
    metadata,
    Column("replay", Text, primary_key=True),
    Column("topic_id", Uuid, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("topic", Text, nullable=False),
    Column("arguments", Text, nullable=False),
    Column("every_entity", Boolean, nullable=False),
    Column("restores_since", BigInteger),
    Column("start_offset", BigInteger, nullable=False),
    Column("next_offset", BigInteger, nullable=False),
    Column("stored_to", BigInteger, nullable=False),
    Column("began_at", DateTime(timezone=True), nullable=False, server_default=NOW),
    Column("finished_at", DateTime(timezone=True)),
)

rejected_ticks = Table(
    "rejected_ticks",
    metadata,
    Column("topic_id", Uuid, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("offset", BigInteger, primary_key=True),
    Column("index", Integer, primary_key=True),
    Column("topic", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("key", LargeBinary),
    Column("value", LargeBinary),
    Column("known_at", BigInteger, nullable=False),
    Column("stored_at", DateTime(timezone=True), nullable=False, server_default=NOW),
    Column("relayed_at", DateTime(timezone=True)),
    Index(
        "rejected_ticks_to_relay",
        "stored_at",
        postgresql_where=text("relayed_at IS NULL"),
    ),
)

topics = Table(
    "topics",
    metadata,
    Column("topic_id", Uuid, primary_key=True),
    Column("topic", Text, nullable=False),
    Column("partitions", Integer, nullable=False),
    Column("seen_at", DateTime(timezone=True), nullable=False, server_default=NOW),
    Column("incarnation", BigInteger, Identity(always=True), nullable=False),
)

sources = Table(
    "sources",
    metadata,
    Column("name", Text, primary_key=True),
    Column("definition", JSONB, nullable=False),
)

source_rules = Table(
    "source_rules",
    metadata,
    Column("id", Integer, Identity(always=True), primary_key=True),
    Column("source", Text, ForeignKey(sources.c.name), nullable=False),
    Column("definition", JSONB, nullable=False),
    Column("recorded_at", DateTime(timezone=True), nullable=False, server_default=NOW),
    Column("recorded_by", Text, nullable=False),
)

rules_starts = Table(
    "rules_starts",
    metadata,
    Column("rules_id", Integer, ForeignKey(source_rules.c.id), primary_key=True),
    Column("topic_id", Uuid, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("from_offset", BigInteger, nullable=False),
    Index("rules_starts_of_partition", "topic_id", "partition", "rules_id"),
)

feature_versions = Table(
    "feature_versions",
    metadata,
    Column("name", Text, primary_key=True),
    Column("version", Text, primary_key=True),
    Column("definition", JSONB, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=NOW),
    Column("created_by", Text, nullable=False),
    Column("digest", LargeBinary),
    Column("identity", JSONB),
    Column("note", Text, nullable=False, server_default=text("''")),
    Column("deprecated_at", DateTime(timezone=True)),
    Column("retired_at", DateTime(timezone=True)),
    Column("replacement", Text),
)

row_schemas = Table(
    "row_schemas",
    metadata,
    Column("id", Integer, Identity(always=True), primary_key=True),
    Column("source", Text, ForeignKey(sources.c.name), nullable=False),
    Column("features", ARRAY(Text), nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=NOW),
)

schema_starts = Table(
    "schema_starts",
    metadata,
    Column("topic_id", Uuid, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("schema_id", Integer, primary_key=True),
    Column("from_offset", BigInteger, nullable=False),
)

carried_over = Table(
    "carried_over",
    metadata,
    Column("topic_id", Uuid, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("schema_id", Integer, primary_key=True),
    Column("finished_at", DateTime(timezone=True), nullable=False, server_default=NOW),
)

active_versions = Table(
    "active_versions",
    metadata,
    Column("name", Text, primary_key=True),
    Column("version", Text, nullable=False),
)

activations = Table(
    "activations",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("name", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("previous", Text),
    Column("action", Text, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False, server_default=NOW),
    Column("actor", Text, nullable=False),
    Column("note", Text, nullable=False, server_default=text("''")),
    Index("activations_of_name", "name", "id"),
)

feature_sets = Table(
    "feature_sets",
    metadata,
    Column("name", Text, primary_key=True),
    Column("version", Text, primary_key=True),
    Column("definition", JSONB, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=NOW),
    Column("created_by", Text, nullable=False),
    Column("deprecated_at", DateTime(timezone=True)),
    Column("retired_at", DateTime(timezone=True)),
    Column("replacement", Text),
)

set_models = Table(
    "set_models",
    metadata,
    Column("name", Text, primary_key=True),
    Column("version", Text, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("since", DateTime(timezone=True), nullable=False, server_default=NOW),
    Column("recorded_by", Text, nullable=False),
    ForeignKeyConstraint(
        ["name", "version"], ["tickwell.feature_sets.name", "tickwell.feature_sets.version"]
    ),
)

active_columns = Table(
    "active_columns",
    metadata,
    Column("source", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("indexes", ARRAY(Integer), nullable=False),
    Column("backfill", Integer),
)

experiments = Table(
    "experiments",
    metadata,
    Column("name", Text, primary_key=True),
    Column("definition", JSONB, nullable=False),
    Column("started_at", DateTime(timezone=True), nullable=False, server_default=NOW),
    Column("started_by", Text, nullable=False),
    Column("stopped_at", DateTime(timezone=True)),
    Column("stopped_by", Text),
    Column("winner", Text),
    Index(
        "experiments_running",
        text("(definition ->> 'feature')"),
        unique=True,
        postgresql_where=text("stopped_at IS NULL"),
    ),
)

search_documents = Table(
    "search_documents",
    metadata,
    Column("name", Text, primary_key=True),
    Column("aliases", ARRAY(Text), nullable=False),
    Column("description", Text, nullable=False),
    Column("document", TSVECTOR, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Index("search_documents_words", "document", postgresql_using="gin"),
)

search_words = Table("search_words", metadata, Column("word", Text, primary_key=True))

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Integer, Identity(always=True), primary_key=True),
    Column("name", Text, nullable=False),
    Column("sha256", LargeBinary, nullable=False, unique=True),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=NOW),
    Column("created_by", Text, nullable=False),
    Column("expires_at", DateTime(timezone=True)),
    Column("revoked_at", DateTime(timezone=True)),
    Column("revoked_by", Text),
    Index("api_keys_name", "name", unique=True, postgresql_where=text("revoked_at IS NULL")),
)

serial = Table(
    "serial",
    metadata,
    Column("id", Boolean, primary_key=True, server_default=text("true")),
    Column("number", BigInteger, nullable=False),
    Column("moved_at", DateTime(timezone=True), nullable=False, server_default=NOW),
)

usage = Table(
    "usage",
    metadata,
    Column("name", Text, primary_key=True),
    Column("version", Text, primary_key=True),
    Column("consumer", Text, primary_key=True),
    Column("day", Date, primary_key=True),
    Column("reads", BigInteger, nullable=False),
    Column("last_read", DateTime(timezone=True), nullable=False),
    Index("usage_day", "day"),
)

usage_batches = Table(
    "usage_batches",
    metadata,
    Column("process", Uuid, primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("stored_at", DateTime(timezone=True), nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("at", DateTime(timezone=True), nullable=False, server_default=NOW),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("after", JSONB),
    Column("before", JSONB),
    Column("request_id", Text),
    Column("note", Text, nullable=False, server_default=text("''")),
    Index("audit_of_subject", "subject", "id"),
)
