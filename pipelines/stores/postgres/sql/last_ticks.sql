-- The newest ticks of an entity, at most `depth`, in however many of the row schemas they are; the newest
-- first. `closed` says of each whether its row was closed then.
SELECT DISTINCT ON (row.event_time, row.sequence)
    row.event_time, row.op, row.fields, substring(row.status FOR 1) = %(closed)s AS closed
FROM unnest(%(schemas)s::integer[]) AS schema (id)
CROSS JOIN LATERAL (
    SELECT stored.event_time, stored.sequence, stored.op, stored.fields, stored.status
    FROM tickwell.feature_rows AS stored
    WHERE stored.entity = %(entity)s AND stored.schema_id = schema.id AND stored.revision = 0
    ORDER BY stored.event_time DESC, stored.sequence DESC
    LIMIT %(depth)s
) AS row
ORDER BY row.event_time DESC, row.sequence DESC
LIMIT %(depth)s
