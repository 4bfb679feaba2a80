-- Repairs let ticks into history that live refused, because they came late, and carry out what live never
-- does: cancels and corrections. They add rows of a higher revision, and change none.
CREATE TABLE tickwell.repairs (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source text NOT NULL REFERENCES tickwell.sources (name),
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    started_by text NOT NULL,
    note text NOT NULL DEFAULT '',
    -- when its rows became known, nanoseconds UTC: what is asked as of a moment before it is as without it
    known_at bigint NOT NULL,
    -- when all of its edits had been made
    finished_at timestamptz
);

-- One tick each that was rejected, and what a repair made of it.
CREATE TABLE tickwell.repair_edits (
    topic_id uuid NOT NULL,
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    index integer NOT NULL,
    repair integer NOT NULL REFERENCES tickwell.repairs (id),
    kind text NOT NULL CHECK (kind IN ('insert', 'cancel', 'correct')),
    entity text NOT NULL,
    -- NULL until it is made: made, or why it could not be
    outcome text,
    -- the key of the tick that it is of, once it is made
    event_time bigint,
    sequence bigint,
    -- the row schema in which the rows behind it were compared last, and the last of these
    settled_in integer,
    settled_time bigint,
    settled_sequence bigint,
    -- whether later ticks may still have it in their windows
    open boolean NOT NULL DEFAULT true,
    PRIMARY KEY (topic_id, partition, "offset", index)
);
CREATE INDEX repair_edits_of_repair ON tickwell.repair_edits (repair, entity);
CREATE INDEX repair_edits_open ON tickwell.repair_edits (repair) WHERE open;
CREATE INDEX repair_edits_settled ON tickwell.repair_edits (repair, settled_in);
