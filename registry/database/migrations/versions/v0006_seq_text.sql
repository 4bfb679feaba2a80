-- A `seq` may be text, as a trade's id: `seq` is then a digest of it, and this is the text itself.
-- The column is NULL everywhere until then, so that adding it writes no row.
ALTER TABLE tickwell.feature_rows ADD COLUMN seq_text text;

-- Inserts the rows of pg_temp.staging_rows that are not there yet, and compares the others; returns
-- how many are new. Raises TW001 when a row is there with other bits.
CREATE OR REPLACE FUNCTION tickwell.insert_staged()
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
        OR stored.seq_text IS DISTINCT FROM staged.seq_text
    ORDER BY staged.event_time LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'a row is stored with other bits' USING
            ERRCODE = 'TW001',
            DETAIL = json_build_array(other.entity, other.event_time, other.sequence)::text;
    END IF;
    RETURN inserted;
END
$$;
