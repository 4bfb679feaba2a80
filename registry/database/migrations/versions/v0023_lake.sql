-- How often rows of a source were stored whose event times are in a day, by who stores them. It moves in
-- the transaction of the rows, so a snapshot that has the one has the other: a copy of a day is whole as
-- long as the sum of its numbers is the one that its snapshot had. Each writer has numbers of its own,
-- by partition, and waits for nobody.
CREATE TABLE tickwell.day_changes (
    source text NOT NULL,
    day date NOT NULL,
    writer text NOT NULL,
    topic_id uuid NOT NULL,
    partition integer NOT NULL,
    changes bigint NOT NULL,
    PRIMARY KEY (source, day, writer, topic_id, partition)
) WITH (fillfactor = 50);  -- updated by every run: room on the page keeps the updates in place

-- Counts that rows of days, numbered from 1970-01-01 on, are stored. A step of the transaction that
-- stores them.
CREATE FUNCTION tickwell.change_days(
    the_source text, the_writer text, the_topic uuid, the_partition integer, days integer[]
)
RETURNS void LANGUAGE sql AS $$
    -- in order, so that two transactions of one writer cannot deadlock
    INSERT INTO tickwell.day_changes AS known (source, day, writer, topic_id, partition, changes)
    SELECT DISTINCT the_source, date '1970-01-01' + number, the_writer, the_topic, the_partition, 1
    FROM unnest(days) AS number
    ORDER BY 2
    ON CONFLICT (source, day, writer, topic_id, partition)
        DO UPDATE SET changes = known.changes + 1
$$;

-- When the days of rows that were stored before changes were counted have been looked up. The first
-- export does it, which has to read all rows anyway.
CREATE TABLE tickwell.day_scans (
    scanned_at timestamptz PRIMARY KEY DEFAULT now()
);

INSERT INTO tickwell.day_scans
SELECT now() WHERE NOT EXISTS (SELECT FROM tickwell.feature_rows);

-- The days of sources that the lake has: which changes of the day its files have, and how far the
-- partitions of the topic had been stored then.
CREATE TABLE tickwell.lake_days (
    source text NOT NULL,
    day date NOT NULL,
    changes bigint NOT NULL,
    watermarks jsonb NOT NULL,
    exported_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (source, day)
);

-- The files of a day, one for each row schema that has rows in it. The path is relative to the lake;
-- `columns` is the digest of what its columns are.
CREATE TABLE tickwell.lake_files (
    source text NOT NULL,
    day date NOT NULL,
    schema_id integer NOT NULL,
    path text NOT NULL,
    rows bigint NOT NULL,
    bytes bigint NOT NULL,
    sha256 bytea NOT NULL,
    columns bytea NOT NULL,
    PRIMARY KEY (source, day, schema_id),
    FOREIGN KEY (source, day) REFERENCES tickwell.lake_days (source, day)
);
