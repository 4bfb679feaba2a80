-- An experiment gives some entities or consumers one version of a feature, and others another one.
CREATE TABLE tickwell.experiments (
    name text PRIMARY KEY,
    definition jsonb NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    started_by text NOT NULL,
    stopped_at timestamptz,
    stopped_by text,
    winner text,
    CHECK (winner IS NULL OR stopped_at IS NOT NULL)
);

-- A feature's name is in one experiment at a time.
CREATE UNIQUE INDEX experiments_running ON tickwell.experiments ((definition ->> 'feature'))
WHERE stopped_at IS NULL;
