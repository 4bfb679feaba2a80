-- The newest timestamp of a record that is stored of a partition, nanoseconds UTC; NULL before the first.
ALTER TABLE tickwell.watermarks ADD COLUMN known_at bigint;

-- The end of each partition's log that a worker was told last by the broker, and when, nanoseconds UTC.
-- A partition that is stored up to there has all that had arrived by then, also where nothing arrives.
-- Rows change every few seconds and stay on their pages.
CREATE TABLE tickwell.log_ends (
    topic_id uuid NOT NULL,
    partition integer NOT NULL,
    end_offset bigint NOT NULL,
    reported_at bigint NOT NULL,
    PRIMARY KEY (topic_id, partition)
) WITH (fillfactor = 50);

-- Training sets that are kept by name: how each was made, and what proves it again. `digests` has one of
-- the entity rows and one of each feature's bits.
CREATE TABLE tickwell.training_sets (
    name text PRIMARY KEY,
    made jsonb NOT NULL,
    features text[] NOT NULL,
    rows bigint NOT NULL,
    statuses jsonb NOT NULL,
    digests jsonb NOT NULL,
    sources jsonb NOT NULL,
    frame_bytes bigint NOT NULL,
    built_at timestamptz NOT NULL DEFAULT now(),
    built_by text NOT NULL
);

-- The entity rows of a training set, key fields and moments: a Parquet file in pieces.
CREATE TABLE tickwell.training_set_frames (
    name text NOT NULL REFERENCES tickwell.training_sets (name) ON DELETE CASCADE,
    number integer NOT NULL,
    content bytea NOT NULL,
    PRIMARY KEY (name, number)
);
ALTER TABLE tickwell.training_set_frames ALTER COLUMN content SET STORAGE EXTERNAL;

-- The first and the last moment at which a training set has something of an entity, nanoseconds UTC.
CREATE TABLE tickwell.training_set_entities (
    source text NOT NULL,
    entity text COLLATE "C" NOT NULL,
    name text NOT NULL REFERENCES tickwell.training_sets (name) ON DELETE CASCADE,
    first bigint NOT NULL,
    last bigint NOT NULL,
    PRIMARY KEY (source, entity, name)
);
CREATE INDEX training_set_entities_of_name ON tickwell.training_set_entities (name);
