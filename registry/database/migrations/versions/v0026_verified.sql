-- The entity of each source up to which workers have verified in this round.
CREATE TABLE tickwell.verified_to (
    source text PRIMARY KEY,
    entity text NOT NULL
);

-- What differs, each once, until somebody has seen to it. The digest is of what is different where.
CREATE TABLE tickwell.found_differences (
    digest bytea PRIMARY KEY,
    place text NOT NULL,
    kind text NOT NULL,
    source text NOT NULL,
    entity text[] NOT NULL,
    event_time bigint,
    sequence bigint,
    feature text,
    found text NOT NULL,
    expected text NOT NULL,
    found_at timestamptz NOT NULL DEFAULT now()
);
