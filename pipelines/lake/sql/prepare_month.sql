-- A table that can take the place of a month's partition, without a scan.
CREATE TABLE tickwell.{name}_kept (
    LIKE tickwell.{name} INCLUDING ALL,
    CONSTRAINT {name}_bounds CHECK (event_time >= {low} AND event_time < {high})
)
