-- Of entities the newest tick that lies before given offsets of partitions.
SELECT wanted.number, found.event_time, found.sequence
FROM unnest(%(entities)s::text[]) WITH ORDINALITY AS wanted (entity, number)
CROSS JOIN LATERAL (
    SELECT one.event_time, one.sequence
    FROM unnest(%(schemas)s::integer[]) AS schema (id)
    CROSS JOIN LATERAL (
        SELECT row.event_time, row.sequence FROM tickwell.feature_rows AS row
        WHERE row.entity = wanted.entity AND row.schema_id = schema.id AND row.revision = 0
            AND EXISTS (
                SELECT
                FROM unnest(%(topics)s::uuid[], %(partitions)s::integer[], %(offsets)s::bigint[])
                    AS stored (topic_id, partition, following)
                WHERE stored.topic_id = row.topic_id AND stored.partition = row.partition
                    AND row."offset" < stored.following
            )
        ORDER BY row.event_time DESC, row.sequence DESC LIMIT 1
    ) AS one
    ORDER BY one.event_time DESC, one.sequence DESC LIMIT 1
) AS found
