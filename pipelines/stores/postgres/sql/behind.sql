-- The next entities of a source after one, by name: how many, the last one, and those at home in some
-- partitions whose newest row is in an older row schema. An entity of another incarnation of the topic
-- is at home in partition 0.
WITH next AS MATERIALIZED (
    SELECT known.entity, known.topic_id, known.partition FROM tickwell.entities AS known
    WHERE known.source = %(source)s AND (%(after)s::text IS NULL OR known.entity > %(after)s)
    ORDER BY known.entity LIMIT %(many)s
), schemas AS MATERIALIZED (
    SELECT id FROM tickwell.row_schemas WHERE source = %(source)s
)
SELECT (SELECT count(*) FROM next), (SELECT max(entity) FROM next), ARRAY(
    SELECT next.entity
    FROM next
    LEFT JOIN LATERAL (
        SELECT stored.event_time, stored.sequence
        FROM schemas AS schema
        CROSS JOIN LATERAL (
            SELECT row.event_time, row.sequence FROM tickwell.feature_rows AS row
            WHERE row.entity = next.entity AND row.schema_id = schema.id AND row.revision = 0
            ORDER BY row.event_time DESC, row.sequence DESC LIMIT 1
        ) AS stored
        WHERE schema.id >= %(schema)s
        ORDER BY stored.event_time DESC, stored.sequence DESC LIMIT 1
    ) AS newest ON true
    WHERE CASE WHEN next.topic_id = %(topic_id)s::uuid THEN next.partition ELSE 0 END
            = ANY (%(partitions)s)
        AND EXISTS (
            SELECT FROM schemas AS schema
            CROSS JOIN LATERAL (
                SELECT FROM tickwell.feature_rows AS row
                WHERE row.entity = next.entity AND row.schema_id = schema.id AND row.revision = 0
                    AND (row.event_time, row.sequence) > (
                        coalesce(newest.event_time, '-9223372036854775808'::bigint),
                        coalesce(newest.sequence, -1)
                    )
                LIMIT 1
            ) AS later
            WHERE schema.id < %(schema)s
        )
)
