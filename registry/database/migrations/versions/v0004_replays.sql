-- How far a replay is in one partition. `replay` is the digest of its arguments and of the row
-- schema that it writes; who starts the same one again goes on at `next_offset`.
--
-- `restores_since` says which rows are the state of this partition's entities: those from that
-- offset on (0 for all). NULL: rows are missing, and the state is computed from the log's beginning.
-- `stored_to` is the farthest offset that a replay of every entity has brought its rows to, as a
-- watermark says it of live.
CREATE TABLE tickwell.replays (
    replay text NOT NULL,
    topic_id uuid NOT NULL,
    partition integer NOT NULL,
    topic text NOT NULL,
    arguments text NOT NULL,
    every_entity boolean NOT NULL,
    restores_since bigint,
    start_offset bigint NOT NULL,
    next_offset bigint NOT NULL,
    stored_to bigint NOT NULL,
    began_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    PRIMARY KEY (replay, topic_id, partition)
) WITH (fillfactor = 50);

-- Stores what a replay computed of the offsets from `base` up to, not including, `following` of a
-- partition, with its progress, if that is at `base`. One statement, which begins and ends inside the
-- server: a replay that is stopped in the middle must not block live, which writes the same keys.
--
-- Returns the progress that is stored when it is another one (nothing is done then), the entities
-- that have their home elsewhere (nothing is done then either), and how many rows are new.
CREATE FUNCTION tickwell.store_replayed(
    the_replay text,
    the_source text,
    the_topic uuid,
    the_topic_name text,
    the_partition integer,
    base bigint,
    following bigint,
    unsettled text[],
    rejected_offset bigint[],
    rejected_index integer[],
    rejected_reason text[],
    rejected_detail text[],
    rejected_key bytea[],
    rejected_value bytea[],
    rejected_known_at bigint[],
    OUT progress bigint,
    OUT conflicts text[],
    OUT inserted bigint
)
LANGUAGE plpgsql AS $$
BEGIN
    conflicts := '{}';
    inserted := 0;
    SELECT next_offset INTO progress FROM tickwell.replays
    WHERE replay = the_replay AND topic_id = the_topic AND partition = the_partition FOR UPDATE;
    IF progress IS DISTINCT FROM base THEN
        RETURN;
    END IF;

    BEGIN
        conflicts := tickwell.settle_entities(the_source, the_topic, the_partition, unsettled);
        IF conflicts <> '{}' THEN
            RAISE EXCEPTION USING ERRCODE = 'TW002';  -- undo what was settled
        END IF;
    EXCEPTION WHEN SQLSTATE 'TW002' THEN
        RETURN;
    END;
    inserted := tickwell.insert_staged();
    PERFORM tickwell.store_rejected(
        the_topic, the_topic_name, the_partition, rejected_offset, rejected_index,
        rejected_reason, rejected_detail, rejected_key, rejected_value, rejected_known_at
    );
    UPDATE tickwell.replays
    SET next_offset = following, stored_to = greatest(stored_to, following)
    WHERE replay = the_replay AND topic_id = the_topic AND partition = the_partition;
END
$$;

-- The first step of storing a run of a replay by copying straight into the table, for a partition
-- that live was never at. Like live it takes the partition's lock, so that a replay that is stopped in
-- the middle can be fenced when live comes; it does not wait for it.
--
-- Returns whether the replay may go on by copying, and what `store_replayed` returns. The caller
-- rolls back unless it may, the progress is `base`, and there are no conflicts.
CREATE FUNCTION tickwell.begin_replayed(
    the_replay text,
    the_source text,
    the_topic uuid,
    the_partition integer,
    base bigint,
    unsettled text[],
    OUT alone boolean,
    OUT progress bigint,
    OUT conflicts text[]
)
LANGUAGE plpgsql AS $$
BEGIN
    conflicts := '{}';
    alone := pg_try_advisory_xact_lock(tickwell.partition_lock(the_topic, the_partition))
        AND NOT EXISTS (
            SELECT FROM tickwell.watermarks WHERE topic_id = the_topic AND partition = the_partition
        );
    IF NOT alone THEN
        RETURN;
    END IF;
    SELECT next_offset INTO progress FROM tickwell.replays
    WHERE replay = the_replay AND topic_id = the_topic AND partition = the_partition FOR UPDATE;
    IF progress = base THEN
        conflicts := tickwell.settle_entities(the_source, the_topic, the_partition, unsettled);
    END IF;
END
$$;
