CREATE TABLE tickwell.{name} (
    LIKE tickwell.feature_rows INCLUDING DEFAULTS INCLUDING CONSTRAINTS,
    CONSTRAINT {name}_bounds CHECK (event_time >= {low} AND event_time < {high})
);
ALTER TABLE tickwell.feature_rows ATTACH PARTITION tickwell.{name} FOR VALUES FROM ({low}) TO ({high});
ALTER TABLE tickwell.{name} DROP CONSTRAINT {name}_bounds;
