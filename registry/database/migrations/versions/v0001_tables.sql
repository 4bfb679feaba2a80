-- Times are bigint nanoseconds UTC where they are a tick's, timestamptz where they are ours.

-- `IF NOT EXISTS` would ask for the right to create one where it is there, too.
DO $$
BEGIN
    IF to_regnamespace('features') IS NULL THEN
        CREATE SCHEMA features;
    END IF;
END
$$;

CREATE TABLE tickwell.sources (
    name text PRIMARY KEY,
    definition jsonb NOT NULL
);

CREATE TABLE tickwell.feature_versions (
    name text NOT NULL,
    version text NOT NULL,
    definition jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by text NOT NULL,
    PRIMARY KEY (name, version)
);

CREATE TABLE tickwell.row_schemas (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source text NOT NULL REFERENCES tickwell.sources (name),
    features text[] NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE tickwell.active_versions (
    name text PRIMARY KEY,
    version text NOT NULL
);

CREATE TABLE tickwell.audit (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    actor text NOT NULL,
    action text NOT NULL,
    subject text NOT NULL,
    detail jsonb NOT NULL
);

CREATE TABLE tickwell.topics (
    topic_id uuid PRIMARY KEY,
    topic text NOT NULL,
    partitions integer NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE tickwell.watermarks (
    topic_id uuid NOT NULL,
    partition integer NOT NULL,
    topic text NOT NULL,
    next_offset bigint NOT NULL,
    PRIMARY KEY (topic_id, partition)
) WITH (fillfactor = 50);  -- updated by every run: room on the page keeps the updates in place

-- The collation "C" compares bytes: faster, and the same order whatever the server's locale.
CREATE TABLE tickwell.entities (
    source text COLLATE "C" NOT NULL,
    entity text COLLATE "C" NOT NULL,
    topic_id uuid NOT NULL,
    partition integer NOT NULL,
    PRIMARY KEY (source, entity)
);

CREATE TABLE tickwell.feature_rows (
    schema_id integer NOT NULL,
    entity text COLLATE "C" NOT NULL,
    event_time bigint NOT NULL,
    sequence bigint NOT NULL,
    revision smallint NOT NULL,
    tick_time bigint NOT NULL,
    seq bigint,
    op smallint NOT NULL,
    fields double precision[] NOT NULL,
    features double precision[] NOT NULL,
    status bytea NOT NULL,
    known_at bigint NOT NULL,
    topic_id uuid NOT NULL,
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    index integer NOT NULL,
    PRIMARY KEY (entity, schema_id, event_time, sequence, revision)
) PARTITION BY RANGE (event_time);

CREATE TABLE tickwell.feature_rows_default PARTITION OF tickwell.feature_rows DEFAULT;

CREATE TABLE tickwell.rejected_ticks (
    topic_id uuid NOT NULL,
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    index integer NOT NULL,
    topic text NOT NULL,
    reason text NOT NULL,
    detail text NOT NULL,
    key bytea,
    value bytea,
    known_at bigint NOT NULL,
    stored_at timestamptz NOT NULL DEFAULT now(),
    relayed_at timestamptz,
    PRIMARY KEY (topic_id, partition, "offset", index)
);

CREATE INDEX rejected_ticks_to_relay ON tickwell.rejected_ticks (stored_at)
    WHERE relayed_at IS NULL;
