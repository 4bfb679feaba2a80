-- The sequence that is free for one more tick of an entity at a time.
SELECT coalesce(max(stored.sequence) + 1, 0)
FROM unnest(%(schemas)s::integer[]) AS schema (id)
JOIN tickwell.feature_rows AS stored
    ON stored.entity = %(entity)s AND stored.schema_id = schema.id AND stored.event_time = %(time)s
