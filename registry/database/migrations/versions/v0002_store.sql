-- A worker copies the rows of a run into the private table pg_temp.staging_rows (made by
-- pipelines/stores/postgres/sql/staging.sql), which takes no lock that anyone waits for, and then calls one of these
-- functions as a statement of its own. Everything that locks happens inside the server, from the
-- statement's beginning to its commit, so a worker that is stopped or killed blocks nobody.

-- Inserts the staged rows of one partition. `names` are the entities by place, `unsettled` those
-- whose home is not known to be this partition.
--
-- Returns the entities that have their home elsewhere; nothing may be stored then, and the caller
-- must not commit. Raises TW001 when a row is there already with other bits.
CREATE FUNCTION tickwell.store_rows(
    the_source text,
    the_schema integer,
    the_topic uuid,
    the_partition integer,
    names text[],
    unsettled text[],
    OUT conflicts text[],
    OUT inserted bigint
)
LANGUAGE plpgsql AS $$
DECLARE
    other record;
BEGIN
    inserted := 0;
    -- In order, so that two workers that settle the same entities cannot deadlock.
    INSERT INTO tickwell.entities AS known (source, entity, topic_id, partition)
    SELECT the_source, entity, the_topic, the_partition
    FROM unnest(unsettled) AS entity ORDER BY entity
    ON CONFLICT (source, entity) DO UPDATE
        SET topic_id = excluded.topic_id, partition = excluded.partition
        WHERE known.topic_id <> excluded.topic_id;

    conflicts := ARRAY(
        SELECT entity FROM tickwell.entities
        WHERE source = the_source AND entity = ANY (unsettled)
            AND topic_id = the_topic AND partition <> the_partition
    );
    IF conflicts <> '{}' THEN
        RETURN;
    END IF;

    INSERT INTO tickwell.feature_rows (
        schema_id, entity, event_time, sequence, revision, tick_time, seq, op,
        fields, features, status, known_at, topic_id, partition, "offset", index
    )
    SELECT
        the_schema, named.entity, staged.event_time, staged.sequence, 0, staged.tick_time,
        nullif(staged.seq, -9223372036854775808), staged.op,
        staged.fields, staged.features, staged.status, staged.known_at,
        the_topic, the_partition, staged."offset", staged.index
    FROM pg_temp.staging_rows AS staged
    JOIN unnest(names) WITH ORDINALITY AS named (entity, place) ON named.place = staged.name + 1
    ON CONFLICT (entity, schema_id, event_time, sequence, revision) DO NOTHING;
    GET DIAGNOSTICS inserted = ROW_COUNT;

    IF inserted = (SELECT count(*) FROM pg_temp.staging_rows) THEN
        RETURN;
    END IF;
    SELECT named.entity, staged.event_time, staged.sequence INTO other
    FROM pg_temp.staging_rows AS staged
    JOIN unnest(names) WITH ORDINALITY AS named (entity, place) ON named.place = staged.name + 1
    JOIN tickwell.feature_rows AS stored
        ON stored.entity = named.entity AND stored.schema_id = the_schema
        AND stored.event_time = staged.event_time AND stored.sequence = staged.sequence
        AND stored.revision = 0
    -- array_send gives the bits; `=` would take -0.0 for 0.0
    WHERE (
            stored.tick_time, stored.op, array_send(stored.fields), array_send(stored.features),
            stored.status, stored.known_at, stored.topic_id, stored.partition, stored."offset",
            stored.index
        ) <> (
            staged.tick_time, staged.op, array_send(staged.fields), array_send(staged.features),
            staged.status, staged.known_at, the_topic, the_partition, staged."offset",
            staged.index
        )
        OR stored.seq IS DISTINCT FROM nullif(staged.seq, -9223372036854775808)
    ORDER BY staged.event_time LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'a row is stored with other bits' USING
            ERRCODE = 'TW001',
            DETAIL = json_build_array(other.entity, other.event_time, other.sequence)::text;
    END IF;
END
$$;

-- Stores what came of the offsets from `base` up to, not including, `following` of a partition, if
-- the partition's watermark is at `base` or was never set.
--
-- Returns the watermark that is stored when it is another one (nothing is done then), and the
-- entities that have their home elsewhere (nothing is done then either).
CREATE FUNCTION tickwell.store_run(
    the_source text,
    the_schema integer,
    the_topic uuid,
    the_topic_name text,
    the_partition integer,
    base bigint,
    following bigint,
    names text[],
    unsettled text[],
    rejected_offset bigint[],
    rejected_index integer[],
    rejected_reason text[],
    rejected_detail text[],
    rejected_key bytea[],
    rejected_value bytea[],
    rejected_known_at bigint[],
    OUT watermark bigint,
    OUT conflicts text[]
)
LANGUAGE plpgsql AS $$
BEGIN
    conflicts := '{}';
    INSERT INTO tickwell.watermarks VALUES (the_topic, the_partition, the_topic_name, base)
    ON CONFLICT DO NOTHING;
    SELECT next_offset INTO watermark FROM tickwell.watermarks
    WHERE topic_id = the_topic AND partition = the_partition FOR UPDATE;
    IF watermark <> base THEN
        RETURN;
    END IF;

    BEGIN
        SELECT stored.conflicts INTO conflicts
        FROM tickwell.store_rows(
            the_source, the_schema, the_topic, the_partition, names, unsettled
        ) AS stored;
        IF conflicts <> '{}' THEN
            RAISE EXCEPTION USING ERRCODE = 'TW002';  -- undo what store_rows settled
        END IF;
    EXCEPTION WHEN SQLSTATE 'TW002' THEN
        RETURN;
    END;

    INSERT INTO tickwell.rejected_ticks (
        topic_id, partition, "offset", index, topic, reason, detail, key, value, known_at
    )
    SELECT the_topic, the_partition, tick."offset", tick.index, the_topic_name,
        tick.reason, tick.detail, tick.key, tick.value, tick.known_at
    FROM unnest(
        rejected_offset, rejected_index, rejected_reason, rejected_detail,
        rejected_key, rejected_value, rejected_known_at
    ) AS tick ("offset", index, reason, detail, key, value, known_at)
    ON CONFLICT DO NOTHING;

    UPDATE tickwell.watermarks SET next_offset = following
    WHERE topic_id = the_topic AND partition = the_partition;
END
$$;
