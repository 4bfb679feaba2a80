-- Of the ticks that are staged between the given times of their entities: how many have an equal tick among
-- the rows of live, of repairs and of other loads, and the first ones that have none, with what is stored
-- there. `known_at` and origins are not compared, as those of a file cannot be those of a log; the values of
-- features follow from the ticks. A tick is compared as it came, whatever repairs have made of it since.
--
-- Of one time the tick with the same `seq` is compared: one that a repair let in stands behind those of its
-- time that live had, and not where its `seq` would be. Those without a `seq` are staged before the others,
-- so the sequence is their number; it is counted among those that are stored without one.
WITH compared AS MATERIALIZED (
    SELECT staged.entity, staged.event_time, staged.sequence, staged.fields,
        stored.fields AS stored_fields,
        stored.entity IS NOT NULL
            AND (stored.tick_time, stored.op, array_send(stored.fields))
                = (staged.tick_time, staged.op, array_send(staged.fields)) AS is_equal
    FROM pg_temp.staging_rows AS staged
    JOIN unnest(%(entities)s::text[], %(firsts)s::bigint[], %(lasts)s::bigint[])
        AS overlap (entity, first_time, last_time) USING (entity)
    LEFT JOIN LATERAL (
        SELECT DISTINCT ON (row.sequence) row.*
        FROM unnest(%(schemas)s::integer[] || %(loaded)s::integer[]) AS schema (id)
        CROSS JOIN LATERAL (
            SELECT * FROM tickwell.feature_rows AS one
            WHERE one.entity = staged.entity AND one.schema_id = schema.id
                AND one.event_time = staged.event_time AND one.topic_id <> %(load)s::uuid
                AND one.seq IS NOT DISTINCT FROM staged.seq
                AND one.seq_text IS NOT DISTINCT FROM staged.seq_text
        ) AS row
        ORDER BY row.sequence, row.revision, row.schema_id DESC
        OFFSET CASE WHEN staged.seq IS NULL THEN staged.sequence ELSE 0 END
        LIMIT 1
    ) AS stored ON true
    WHERE staged.event_time BETWEEN overlap.first_time AND overlap.last_time
)
SELECT entity, count(*) FILTER (WHERE is_equal), count(*) FILTER (WHERE NOT is_equal),
    min(event_time) FILTER (WHERE NOT is_equal),
    (
        array_agg(json_build_array(fields, stored_fields)::text ORDER BY event_time, sequence)
        FILTER (WHERE NOT is_equal)
    )[1]
FROM compared
GROUP BY entity ORDER BY entity
