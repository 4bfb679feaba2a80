-- The sources of which it is not certain what was known by a moment, in nanoseconds UTC: a repair has begun
-- by then and is not finished, or ticks have come by then that have an edit in their windows and were not
-- compared yet.
SELECT repairs.source
FROM tickwell.repairs
WHERE repairs.source = ANY(%(sources)s::text[]) AND (
    (repairs.finished_at IS NULL AND extract(epoch FROM repairs.started_at) * 1000000000 <= %(known)s)
    OR EXISTS (
        SELECT FROM tickwell.repair_edits AS edit
        JOIN tickwell.row_schemas AS schema ON schema.source = repairs.source
        JOIN tickwell.feature_rows AS row
            ON row.entity = edit.entity AND row.schema_id = schema.id AND row.revision = 0
                AND row.event_time >= edit.settled_time AND row.known_at <= %(known)s
                AND (row.event_time, row.sequence) > (edit.settled_time, edit.settled_sequence)
        WHERE edit.repair = repairs.id AND edit.open AND edit.outcome = 'made'
    )
)
LIMIT 1
