-- The rows of ticks that are named by their entity and origin: of each in one row schema, or with none in
-- every one. They are looked for from a time on backwards, which ends at once for a tick that was the newest
-- then. `first` is the origin of the entity's first tick that is stored.
SELECT wanted.number, found.*, first.topic_id::text AS first_topic_id,
    first.partition AS first_partition, first."offset" AS first_offset
FROM unnest(
    %(entities)s::text[], %(schemas)s::integer[], %(topics)s::uuid[], %(partitions)s::integer[],
    %(offsets)s::bigint[], %(indexes)s::integer[], %(times)s::bigint[], %(numbers)s::integer[]
) AS wanted (entity, schema_id, topic_id, partition, "offset", index, event_time, number)
LEFT JOIN LATERAL (
    SELECT row.schema_id, row.event_time, row.sequence, row.known_at, row.status, row.features
    FROM tickwell.feature_rows AS row
    WHERE row.entity = wanted.entity AND row.schema_id = wanted.schema_id AND row.revision = 0
        AND row.event_time <= wanted.event_time AND row.topic_id = wanted.topic_id
        AND row.partition = wanted.partition AND row."offset" = wanted."offset"
        AND row.index = wanted.index
    ORDER BY row.event_time DESC, row.sequence DESC LIMIT 1
) AS found ON true
LEFT JOIN LATERAL (
    SELECT row.topic_id, row.partition, row."offset"
    FROM tickwell.feature_rows AS row
    WHERE row.entity = wanted.entity AND row.schema_id = wanted.schema_id AND row.revision = 0
    ORDER BY row.event_time, row.sequence LIMIT 1
) AS first ON true
