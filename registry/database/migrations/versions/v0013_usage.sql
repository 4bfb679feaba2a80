-- How many values of a version were read by a consumer on a day (UTC). Rows are updated every few
-- seconds: the room that is left in each page keeps that from touching an index.
CREATE TABLE tickwell.usage (
    name text NOT NULL,
    version text NOT NULL,
    consumer text NOT NULL,
    day date NOT NULL,
    reads bigint NOT NULL,
    last_read timestamptz NOT NULL,
    PRIMARY KEY (name, version, consumer, day)
) WITH (fillfactor = 70);

CREATE INDEX usage_day ON tickwell.usage (day);

-- The last batch of counts that each server process has added, so that one that is sent again, as
-- nobody knows whether it was stored, is not added twice.
CREATE TABLE tickwell.usage_batches (
    process uuid PRIMARY KEY,
    number bigint NOT NULL,
    stored_at timestamptz NOT NULL
) WITH (fillfactor = 70);
