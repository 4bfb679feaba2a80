-- Where a backfill reads its ticks: in the rows, or in the topic that they came from.
ALTER TABLE tickwell.backfills ADD COLUMN ticks_from text NOT NULL DEFAULT 'postgres'
    CHECK (ticks_from IN ('postgres', 'kafka'));

-- What a backfill has read of a log, from an offset up to the one that it reads next. Offsets that the
-- log had lost by then lie between two of them.
CREATE TABLE tickwell.backfill_reads (
    backfill integer NOT NULL REFERENCES tickwell.backfills (id),
    topic_id uuid NOT NULL,
    partition integer NOT NULL,
    from_offset bigint NOT NULL,
    next_offset bigint NOT NULL,
    PRIMARY KEY (backfill, topic_id, partition, from_offset),
    CHECK (from_offset <= next_offset)
);
