-- The backfill of a version, of which there is one: how far it has come, in the order of entities and
-- of the ticks of each. An entity without a time is done as a whole; without an entity nothing is.
CREATE TABLE tickwell.backfills (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    version text NOT NULL,
    state text NOT NULL CHECK (state IN ('running', 'complete', 'cancelled')),
    entity text COLLATE "C",
    event_time bigint,
    sequence bigint,
    entities bigint NOT NULL DEFAULT 0,
    ticks bigint NOT NULL DEFAULT 0,
    started_at timestamptz NOT NULL DEFAULT now(),
    started_by text NOT NULL,
    finished_at timestamptz,
    UNIQUE (name, version),
    CHECK ((event_time IS NULL) = (sequence IS NULL)),
    CHECK (entity IS NOT NULL OR event_time IS NULL)
);

-- The offsets whose ticks it is of.
CREATE TABLE tickwell.backfill_ranges (
    backfill integer NOT NULL REFERENCES tickwell.backfills (id),
    topic_id uuid NOT NULL,
    partition integer NOT NULL,
    from_offset bigint NOT NULL,
    to_offset bigint NOT NULL,
    PRIMARY KEY (backfill, topic_id, partition, from_offset),
    CHECK (from_offset < to_offset)
);

-- Values of consecutive ticks of an entity, of revision 0. The event time of each tick is that of the
-- first one and its step times the unit; the steps are in the second column where they need 64 bits.
-- Ticks of one event time have sequences without a gap: that of the first tick is recorded, and a later
-- event time begins at 0. Without statuses all are `ok`. A block has so few ticks that it fits into a
-- page several times, and one value is found without reading what is stored elsewhere; such numbers
-- hardly shrink, so nobody tries.
CREATE TABLE tickwell.backfilled_blocks (
    backfill integer NOT NULL REFERENCES tickwell.backfills (id),
    entity text COLLATE "C" NOT NULL,
    first_event_time bigint NOT NULL,
    first_sequence bigint NOT NULL,
    last_event_time bigint NOT NULL,
    unit bigint NOT NULL,
    steps integer[] STORAGE EXTERNAL,
    long_steps bigint[] STORAGE EXTERNAL,
    values double precision[] STORAGE EXTERNAL NOT NULL,
    statuses bytea,
    PRIMARY KEY (backfill, entity, first_event_time, first_sequence),
    CHECK ((steps IS NULL) <> (long_steps IS NULL))
);

-- The backfill of the active version, if there is a complete one: views look up there what a row lacks.
ALTER TABLE tickwell.active_columns ADD COLUMN backfill integer;
