-- Puts the table that was prepared in the place of a month's partition, whose locks are held.
ALTER TABLE tickwell.feature_rows DETACH PARTITION tickwell.{name};
ALTER TABLE tickwell.feature_rows
    ATTACH PARTITION tickwell.{name}_kept FOR VALUES FROM ({low}) TO ({high});
ALTER TABLE tickwell.{name}_kept DROP CONSTRAINT {name}_bounds;
DROP TABLE tickwell.{name};
ALTER TABLE tickwell.{name}_kept RENAME TO {name};
