-- Every entity whose home is a partition of a topic incarnation (another incarnation, if the partition
-- is NULL) with its newest ticks, oldest first, one after the other as bytes, and its newest row: in
-- the row schema that is written if that tick has a row in it, else in the newest one that it has.
-- Of the partition only what stands before its watermark: a replay may have written beyond it.
DECLARE entities NO SCROLL CURSOR FOR
SELECT
    home.entity, newest.ticks,
    latest.schema_id, latest.event_time, latest.sequence, latest.known_at,
    latest.topic_id, latest.partition, latest."offset", latest.index,
    latest.status, array_send(latest.features)
FROM tickwell.entities AS home
CROSS JOIN LATERAL (
    SELECT
        max(tick.event_time) AS event_time,
        (array_agg(tick.sequence ORDER BY tick.event_time DESC, tick.sequence DESC))[1] AS sequence,
        string_agg(
            int8send(tick.event_time) || int8send(tick.tick_time) || int8send(tick.seq)
                || int2send(tick.op) || array_send(tick.fields),
            '' ORDER BY tick.event_time, tick.sequence
        ) AS ticks
    FROM (
        SELECT DISTINCT ON (stored.event_time, stored.sequence)
            stored.event_time, stored.sequence, stored.tick_time,
            coalesce(stored.seq, -9223372036854775808) AS seq, stored.op, stored.fields
        FROM (SELECT id FROM tickwell.row_schemas WHERE source = %(source)s) AS schema
        CROSS JOIN LATERAL (
            SELECT * FROM tickwell.feature_rows AS row
            WHERE row.entity = home.entity AND row.schema_id = schema.id AND row.revision = 0
                AND (
                    row.topic_id <> %(topic_id)s::uuid OR row.partition <> %(partition)s
                    OR row."offset" < %(before)s
                )
            ORDER BY row.event_time DESC, row.sequence DESC
            LIMIT %(history)s
        ) AS stored
        ORDER BY stored.event_time DESC, stored.sequence DESC
        LIMIT %(history)s
    ) AS tick
) AS newest
CROSS JOIN LATERAL (
    SELECT * FROM tickwell.feature_rows AS row
    WHERE row.entity = home.entity
        AND row.schema_id IN (SELECT id FROM tickwell.row_schemas WHERE source = %(source)s)
        AND row.event_time = newest.event_time AND row.sequence = newest.sequence
        AND row.revision = 0
    ORDER BY row.schema_id = %(writing)s DESC, row.schema_id DESC
    LIMIT 1
) AS latest
WHERE home.source = %(source)s
    AND CASE WHEN home.topic_id = %(topic_id)s::uuid THEN home.partition END
        IS NOT DISTINCT FROM %(partition)s
