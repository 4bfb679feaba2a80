-- The newest ticks of entities, newest first, one row for each tick in however many row schemas it is.
-- Of the partition that is read, only ticks before the offset at which the run begins count, and not
-- those before the log's beginning when a replay began cold there. Rows of other incarnations are
-- older; rows of another partition belong to an entity whose home it is.
SELECT wanted.entity, newest.*
FROM unnest(%(entities)s) AS wanted (entity)
CROSS JOIN LATERAL (
    SELECT DISTINCT ON (stored.event_time, stored.sequence)
        stored.event_time, stored.sequence, stored.tick_time, stored.seq, stored.op,
        stored.fields, stored.topic_id, stored.partition, stored."offset", stored.index,
        stored.status
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
