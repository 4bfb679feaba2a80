-- The rows of ticks, each named by an entity, a time and a sequence, in some row schemas.
SELECT wanted.number, row.schema_id, row.known_at, row.topic_id::text, row.partition, row."offset",
    row.index, row.status, array_send(row.features)
FROM unnest(%(entities)s::text[], %(times)s::bigint[], %(sequences)s::bigint[])
    WITH ORDINALITY AS wanted (entity, event_time, sequence, number)
CROSS JOIN unnest(%(schemas)s::integer[]) AS schema (id)
JOIN tickwell.feature_rows AS row
    ON row.entity = wanted.entity AND row.schema_id = schema.id
        AND row.event_time = wanted.event_time AND row.sequence = wanted.sequence
        AND row.revision = 0
ORDER BY wanted.number, row.schema_id
