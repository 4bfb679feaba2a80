-- The newest ticks of entities, newest first, one row a tick however many row schemas it is in.
-- Of the partition that is read, only what came before the offset at which the run begins, and not
-- what came before the log's beginning when a replay began cold there. Rows of other incarnations are
-- older; rows of another partition are of an entity that is at home there.
SELECT wanted.entity, newest.*
FROM unnest(%(entities)s) AS wanted (entity)
CROSS JOIN LATERAL (
    SELECT DISTINCT ON (stored.event_time, stored.sequence)
        stored.event_time, stored.sequence, stored.tick_time, stored.seq, stored.op,
        stored.fields, stored.topic_id, stored.partition, stored."offset", stored.index
    FROM (SELECT id FROM tickwell.row_schemas WHERE source = %(source)s) AS schema
    CROSS JOIN LATERAL (
        SELECT * FROM tickwell.feature_rows AS row
        WHERE row.entity = wanted.entity AND row.schema_id = schema.id AND row.revision = 0
            AND (
                row.topic_id <> %(topic_id)s::uuid OR row.partition <> %(partition)s
                OR (row."offset" >= %(since)s AND row."offset" < %(before)s)
            )
        ORDER BY row.event_time DESC, row.sequence DESC
        LIMIT %(depth)s
    ) AS stored
    ORDER BY stored.event_time DESC, stored.sequence DESC
    LIMIT %(depth)s
) AS newest
