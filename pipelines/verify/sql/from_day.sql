-- The event time of the first tick of entities from a time on.
SELECT wanted.number, min(row.event_time)
FROM unnest(%(entities)s::text[], %(begins)s::bigint[])
    WITH ORDINALITY AS wanted (entity, begin, number)
CROSS JOIN unnest(%(schemas)s::integer[]) AS schema (id)
CROSS JOIN LATERAL (
    SELECT stored.event_time FROM tickwell.feature_rows AS stored
    WHERE stored.entity = wanted.entity AND stored.schema_id = schema.id AND stored.revision = 0
        AND stored.event_time >= wanted.begin
    ORDER BY stored.event_time, stored.sequence LIMIT 1
) AS row
GROUP BY wanted.number
