-- Partitions in which the newest row of every entity is in a row schema, or in a newer one. What is
-- true once stays so: no run is stored in an older row schema than the newest one that is recorded.
CREATE TABLE tickwell.carried_over (
    topic_id uuid NOT NULL,
    partition integer NOT NULL,
    schema_id integer NOT NULL,
    finished_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (topic_id, partition, schema_id)
);
