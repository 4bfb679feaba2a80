-- Since when a load that was not finished is given up: its rows are taken away, and nobody goes on with it.
-- The load itself goes with the last of them.
ALTER TABLE tickwell.loads
    ADD COLUMN forgotten_at timestamptz,
    ADD CHECK (finished_at IS NULL OR forgotten_at IS NULL);
