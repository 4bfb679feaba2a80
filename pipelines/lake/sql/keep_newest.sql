-- The rows of a month that a state may need: of each entity and row schema those from the newest ticks on, as
-- many as its source's history is long, that come before the month's end. So states are whole wherever one
-- is restored that has ticks behind the month. Of a partition only ticks before its watermark count, as
-- live counts them. What was repaired may be settled once more: a window before it and one behind it, and
-- cancelled ticks, which are in none.
INSERT INTO tickwell.{name}_kept
SELECT stored.*
FROM unnest(%(schemas)s::integer[], %(sources)s::text[], %(histories)s::integer[])
    AS schema (id, source, history)
JOIN tickwell.entities AS known ON known.source = schema.source
CROSS JOIN LATERAL (
    SELECT schema.history * CASE count(*) WHEN 0 THEN 1 ELSE 2 END + count(*) AS ticks
    FROM tickwell.repair_edits AS edit
    JOIN tickwell.repairs AS repair ON repair.id = edit.repair
    WHERE repair.source = known.source AND edit.entity = known.entity
) AS wanted
CROSS JOIN LATERAL (
    SELECT CASE
        WHEN count(*) = wanted.ticks THEN min(tick.event_time)
        ELSE '-9223372036854775808'::bigint
    END AS since
    FROM (
        SELECT row.event_time FROM tickwell.feature_rows AS row
        WHERE row.entity = known.entity AND row.schema_id = schema.id AND row.revision = 0
            AND row.event_time < {high}
            AND (
                schema.id < 0 OR row."offset" < coalesce(
                    (
                        SELECT next_offset FROM tickwell.watermarks AS read
                        WHERE read.topic_id = row.topic_id AND read.partition = row.partition
                    ),
                    0
                )
            )
        ORDER BY row.event_time DESC, row.sequence DESC
        LIMIT wanted.ticks
    ) AS tick
) AS newest
JOIN tickwell.{name} AS stored
    ON stored.entity = known.entity AND stored.schema_id = schema.id
        AND stored.event_time >= newest.since
