CREATE TABLE tickwell.{name} (
    LIKE tickwell.feature_rows INCLUDING DEFAULTS INCLUDING CONSTRAINTS,
    CONSTRAINT {name}_bounds CHECK (event_time >= {low} AND event_time < {high})
);
-- A day is read by it (the lake): rows of a time lie together, so one entry for a megabyte is enough.
CREATE INDEX {name}_times ON tickwell.{name} USING brin (event_time) WITH (autosummarize = on);
ALTER TABLE tickwell.feature_rows ATTACH PARTITION tickwell.{name} FOR VALUES FROM ({low}) TO ({high});
ALTER TABLE tickwell.{name} DROP CONSTRAINT {name}_bounds;
