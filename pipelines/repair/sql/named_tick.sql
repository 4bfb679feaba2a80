-- The ticks of an entity that have a time and a `seq`: their keys, and whether each is cancelled. A tick
-- counts at most `skew` after its own time.
SELECT stored.event_time, stored.sequence, bool_or(stored.op = %(cancelled)s)
FROM unnest(%(schemas)s::integer[]) AS schema (id)
JOIN tickwell.feature_rows AS stored
    ON stored.entity = %(entity)s AND stored.schema_id = schema.id
        AND stored.event_time BETWEEN %(tick_time)s AND %(latest)s
GROUP BY stored.event_time, stored.sequence
HAVING bool_or(
    stored.tick_time = %(tick_time)s AND stored.seq = %(seq)s
    AND stored.seq_text IS NOT DISTINCT FROM %(seq_text)s
)
ORDER BY stored.event_time, stored.sequence
