-- Of partitions of topics the offset behind all ticks that Postgres let go of. The states of entities that
-- rows give are complete from there on; before it they are not.
CREATE TABLE tickwell.dropped_offsets (
    topic_id uuid NOT NULL,
    partition integer NOT NULL,
    next_offset bigint NOT NULL,
    PRIMARY KEY (topic_id, partition)
);

-- The digest of a file that is about to take the place of the one on record. A file of a day that was let
-- go of is read again to be written anew, and either of the two may be there after a kill.
ALTER TABLE tickwell.lake_files ADD COLUMN moving bytea;

-- The days of loaded rows were not counted: the next export looks up all days once more.
DELETE FROM tickwell.day_scans WHERE EXISTS (SELECT FROM tickwell.loads);

-- The time from which on Postgres has all rows of a source: the end of the last month that it let go of.
-- NULL where it let go of none. Rows before it are those that states may need, and what was stored since.
CREATE FUNCTION tickwell.rows_since(the_source text)
RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT extract(epoch FROM date_trunc('month', max(day)::timestamp) + interval '1 month')::bigint
        * 1000000000
    FROM tickwell.lake_days
    WHERE source = the_source AND dropped_at IS NOT NULL
$$;
