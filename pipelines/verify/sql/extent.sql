-- The event times of the first and the last tick of entities.
SELECT wanted.number, min(row.first), max(row.last)
FROM unnest(%(entities)s::text[]) WITH ORDINALITY AS wanted (entity, number)
CROSS JOIN LATERAL (
    SELECT
        (
            SELECT stored.event_time FROM tickwell.feature_rows AS stored
            WHERE stored.entity = wanted.entity AND stored.schema_id = schema.id AND stored.revision = 0
            ORDER BY stored.event_time, stored.sequence LIMIT 1
        ) AS first,
        (
            SELECT stored.event_time FROM tickwell.feature_rows AS stored
            WHERE stored.entity = wanted.entity AND stored.schema_id = schema.id AND stored.revision = 0
            ORDER BY stored.event_time DESC, stored.sequence DESC LIMIT 1
        ) AS last
    FROM unnest(%(schemas)s::integer[]) AS schema (id)
) AS row
GROUP BY wanted.number HAVING min(row.first) IS NOT NULL
