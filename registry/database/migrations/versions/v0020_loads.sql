-- Ticks that were loaded from files, and did not come from Kafka. Their rows are in `feature_rows` under the
-- negative of the id of their row schema: so no key of theirs is one of live's, and nothing that reads the
-- rows of a row schema for the state of live meets them.

-- One load: the same contents of files, read in the same way, are the same load. `id` stands in its rows
-- where those of live have the topic incarnation. It is decided by the rules and computed in the row schema
-- that its source had when it began.
CREATE TABLE tickwell.loads (
    id uuid PRIMARY KEY,
    source text NOT NULL,
    schema_id integer NOT NULL,
    rules integer NOT NULL,
    files jsonb NOT NULL,
    mapping jsonb NOT NULL,
    first_time bigint,
    last_time bigint,
    began_at timestamptz NOT NULL DEFAULT now(),
    began_by text NOT NULL,
    finished_at timestamptz,
    CHECK (schema_id > 0)
);

CREATE INDEX loads_of_source ON tickwell.loads (source, schema_id);

-- How far a load is in each of its partitions, of `ends` offsets. What is counted is of those before
-- `next_offset`; it moves in the transaction of the rows.
CREATE TABLE tickwell.load_partitions (
    load uuid NOT NULL REFERENCES tickwell.loads (id),
    partition integer NOT NULL,
    next_offset bigint NOT NULL DEFAULT 0,
    ends bigint NOT NULL,
    rows bigint NOT NULL DEFAULT 0,
    passed_over bigint NOT NULL DEFAULT 0,
    rejected bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (load, partition),
    CHECK (next_offset <= ends)
) WITH (fillfactor = 50);

-- Of an entity the times between which a load meets rows that were there before, of live or of another
-- load: its ticks there are equal to these, and are passed over.
CREATE TABLE tickwell.load_overlaps (
    load uuid NOT NULL REFERENCES tickwell.loads (id),
    entity text COLLATE "C" NOT NULL,
    first_time bigint NOT NULL,
    last_time bigint NOT NULL,
    PRIMARY KEY (load, entity),
    CHECK (first_time <= last_time)
);

-- Backfilled values of loaded ticks are in blocks under the negative of the id of their backfill, for the
-- same reason: ticks of both kinds may have one time. A backfill is of live's ticks first, then of these.
ALTER TABLE tickwell.backfilled_blocks DROP CONSTRAINT backfilled_blocks_backfill_fkey;
ALTER TABLE tickwell.backfills ADD COLUMN of_loads boolean NOT NULL DEFAULT false;
