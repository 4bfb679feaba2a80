-- The offline worker copies its rows straight into `feature_rows`. It holds locks meanwhile, across
-- its own instructions, so a worker that is stopped in the middle must be got out of the way: whoever
-- waits for a partition longer than a copy can take ends the session that holds it (fence_partition).
-- Nothing is lost by that: the transaction is undone, and the worker reads the watermark anew.

-- Incarnations of a topic in the order in which they were first seen; the last one is current.
ALTER TABLE tickwell.topics ADD COLUMN incarnation bigint GENERATED ALWAYS AS IDENTITY;

-- The advisory lock of a partition; a transaction that changes what comes of it holds it.
CREATE FUNCTION tickwell.partition_lock(the_topic uuid, the_partition integer)
RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT hashtextextended(the_topic::text || '/' || the_partition, 7242019005)
$$;

-- Takes the lock of a partition until the transaction ends. Raises lock_not_available after
-- `patience` milliseconds, and TW003 when the topic was made anew since.
CREATE FUNCTION tickwell.lock_partition(
    the_topic uuid, the_partition integer, patience integer
)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    usual text := current_setting('lock_timeout');
    the_name text;
BEGIN
    PERFORM set_config('lock_timeout', patience::text, true);
    PERFORM pg_advisory_xact_lock(tickwell.partition_lock(the_topic, the_partition));
    PERFORM set_config('lock_timeout', usual, true);
    SELECT newer.topic INTO the_name
    FROM tickwell.topics AS known
    JOIN tickwell.topics AS newer
        ON newer.topic = known.topic AND newer.incarnation > known.incarnation
    WHERE known.topic_id = the_topic LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'the topic was made anew' USING ERRCODE = 'TW003', DETAIL = the_name;
    END IF;
END
$$;

-- Ends the sessions that hold a partition of this incarnation of the topic, or any partition of an
-- earlier one; returns how many.
CREATE FUNCTION tickwell.fence_partition(the_topic uuid, the_partition integer)
RETURNS bigint LANGUAGE sql AS $$
    SELECT count(pg_terminate_backend(lock.pid))
    FROM tickwell.topics AS current
    JOIN tickwell.topics AS known
        ON known.topic = current.topic AND known.incarnation <= current.incarnation
    CROSS JOIN LATERAL generate_series(0, known.partitions - 1) AS partition (number)
    JOIN pg_locks AS lock
        ON (lock.classid::bigint << 32 | lock.objid::bigint)
            = tickwell.partition_lock(known.topic_id, partition.number)
    WHERE current.topic_id = the_topic
        AND (known.topic_id <> the_topic OR partition.number = the_partition)
        AND lock.locktype = 'advisory' AND lock.objsubid = 1 AND lock.granted
        AND lock.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND lock.pid <> pg_backend_pid()
$$;

-- Makes a partition the home of entities that have none, or have it in an earlier incarnation.
-- Returns those that have their home in another partition; the caller must not commit then.
CREATE FUNCTION tickwell.settle_entities(
    the_source text, the_topic uuid, the_partition integer, unsettled text[]
)
RETURNS text[] LANGUAGE plpgsql AS $$
BEGIN
    -- In order, so that two workers that settle the same entities cannot deadlock.
    INSERT INTO tickwell.entities AS known (source, entity, topic_id, partition)
    SELECT the_source, entity, the_topic, the_partition
    FROM unnest(unsettled) AS entity ORDER BY entity
    ON CONFLICT (source, entity) DO UPDATE
        SET topic_id = excluded.topic_id, partition = excluded.partition
        WHERE known.topic_id <> excluded.topic_id;
    RETURN ARRAY(
        SELECT entity FROM tickwell.entities
        WHERE source = the_source AND entity = ANY (unsettled)
            AND topic_id = the_topic AND partition <> the_partition
    );
END
$$;

-- The first step of storing a run: takes the partition, and settles entities.
--
-- Returns the watermark that is stored, and the entities that have their home elsewhere. The caller
-- goes on only if the one is `base` and there are none of the others, and else rolls back.
CREATE FUNCTION tickwell.begin_run(
    the_source text,
    the_topic uuid,
    the_topic_name text,
    the_partition integer,
    base bigint,
    unsettled text[],
    patience integer,
    OUT watermark bigint,
    OUT conflicts text[]
)
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM tickwell.lock_partition(the_topic, the_partition, patience);
    INSERT INTO tickwell.watermarks VALUES (the_topic, the_partition, the_topic_name, base)
    ON CONFLICT DO NOTHING;
    SELECT next_offset INTO watermark FROM tickwell.watermarks
    WHERE topic_id = the_topic AND partition = the_partition;
    IF watermark = base THEN
        conflicts := tickwell.settle_entities(the_source, the_topic, the_partition, unsettled);
    END IF;
END
$$;

-- Stores rejected ticks, once each.
CREATE FUNCTION tickwell.store_rejected(
    the_topic uuid,
    the_topic_name text,
    the_partition integer,
    rejected_offset bigint[],
    rejected_index integer[],
    rejected_reason text[],
    rejected_detail text[],
    rejected_key bytea[],
    rejected_value bytea[],
    rejected_known_at bigint[]
)
RETURNS void LANGUAGE sql AS $$
    INSERT INTO tickwell.rejected_ticks (
        topic_id, partition, "offset", index, topic, reason, detail, key, value, known_at
    )
    SELECT the_topic, the_partition, tick."offset", tick.index, the_topic_name,
        tick.reason, tick.detail, tick.key, tick.value, tick.known_at
    FROM unnest(
        rejected_offset, rejected_index, rejected_reason, rejected_detail,
        rejected_key, rejected_value, rejected_known_at
    ) AS tick ("offset", index, reason, detail, key, value, known_at)
    ON CONFLICT DO NOTHING
$$;

-- Inserts the rows of pg_temp.staging_rows that are not there yet, and compares the others; returns
-- how many are new. Raises TW001 when a row is there with other bits.
CREATE FUNCTION tickwell.insert_staged()
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    inserted bigint;
    other record;
BEGIN
    INSERT INTO tickwell.feature_rows SELECT * FROM pg_temp.staging_rows
    ON CONFLICT (entity, schema_id, event_time, sequence, revision) DO NOTHING;
    GET DIAGNOSTICS inserted = ROW_COUNT;
    IF inserted = (SELECT count(*) FROM pg_temp.staging_rows) THEN
        RETURN inserted;
    END IF;
    SELECT staged.entity, staged.event_time, staged.sequence INTO other
    FROM pg_temp.staging_rows AS staged
    JOIN tickwell.feature_rows AS stored
        USING (entity, schema_id, event_time, sequence, revision)
    -- array_send gives the bits; `=` would take -0.0 for 0.0
    WHERE (
            stored.tick_time, stored.op, array_send(stored.fields), array_send(stored.features),
            stored.status, stored.known_at, stored.topic_id, stored.partition, stored."offset",
            stored.index
        ) <> (
            staged.tick_time, staged.op, array_send(staged.fields), array_send(staged.features),
            staged.status, staged.known_at, staged.topic_id, staged.partition, staged."offset",
            staged.index
        )
        OR stored.seq IS DISTINCT FROM staged.seq
    ORDER BY staged.event_time LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'a row is stored with other bits' USING
            ERRCODE = 'TW001',
            DETAIL = json_build_array(other.entity, other.event_time, other.sequence)::text;
    END IF;
    RETURN inserted;
END
$$;

DROP FUNCTION tickwell.store_run, tickwell.store_rows;
