-- The sources of which it is not certain what was known by a moment, in nanoseconds UTC: a repair has begun
-- by then and is not finished, or ticks have come by then that have an edit in their windows and were not
-- compared yet, or the rows behind an edit were compared last in a row schema before the one that a version
-- came with that is asked for. A repair that became known later changes nothing of it.
SELECT repairs.source
FROM unnest(%(sources)s::text[], %(schemas)s::integer[]) AS asked (source, schema_id)
JOIN tickwell.repairs USING (source)
WHERE (
    (repairs.finished_at IS NULL AND extract(epoch FROM repairs.started_at) * 1000000000 <= %(known)s)
    OR repairs.known_at <= %(known)s AND EXISTS (
        SELECT FROM tickwell.repair_edits AS edit
        JOIN tickwell.row_schemas AS schema ON schema.source = repairs.source
        JOIN tickwell.feature_rows AS row
            ON row.entity = edit.entity AND row.schema_id = schema.id AND row.revision = 0
                AND row.event_time >= edit.settled_time AND row.known_at <= %(known)s
                AND (row.event_time, row.sequence) > (edit.settled_time, edit.settled_sequence)
        WHERE edit.repair = repairs.id AND edit.open AND edit.outcome = 'made'
    )
    OR repairs.known_at <= %(known)s AND EXISTS (
        SELECT FROM tickwell.repair_edits AS edit
        WHERE edit.repair = repairs.id AND edit.outcome = 'made' AND edit.settled_in < asked.schema_id
    )
)
LIMIT 1
