-- What is stored already of entities between their first and last times in a load, numbered from 0: the
-- first time, the last one and the number of ticks of live, of repairs and of other loads there; the time of
-- the first tick that live took, wherever it is: one that a repair let in before it is in no window of live's.
-- Only entities of which one of these is there.
SELECT wanted.number::integer - 1, found.first_time, found.last_time, found.ticks, live.first_time
FROM unnest(%(entities)s::text[], %(firsts)s::bigint[], %(lasts)s::bigint[]) WITH ORDINALITY
    AS wanted (entity, first_time, last_time, number)
CROSS JOIN LATERAL (
    SELECT EXISTS (
        SELECT FROM tickwell.entities AS known
        WHERE known.source = %(source)s AND known.entity = wanted.entity
            AND NOT EXISTS (SELECT FROM tickwell.loads WHERE loads.id = known.topic_id)
    ) AS of_live
) AS known
CROSS JOIN LATERAL (
    SELECT min(row.event_time) AS first_time
    FROM unnest(%(schemas)s::integer[]) AS schema (id)
    CROSS JOIN LATERAL (
        SELECT stored.event_time FROM tickwell.feature_rows AS stored
        WHERE known.of_live AND stored.entity = wanted.entity AND stored.schema_id = schema.id
            AND stored.revision = 0
        ORDER BY stored.event_time LIMIT 1
    ) AS row
) AS live
CROSS JOIN LATERAL (
    SELECT min(tick.event_time) AS first_time, max(tick.event_time) AS last_time,
        count(*) AS ticks
    FROM (
        SELECT DISTINCT row.event_time, row.seq, row.seq_text,
            CASE WHEN row.seq IS NULL THEN row.sequence END
        FROM unnest(%(schemas)s::integer[] || %(loaded)s::integer[]) AS schema (id)
        CROSS JOIN LATERAL (
            SELECT stored.event_time, stored.sequence, stored.seq, stored.seq_text
            FROM tickwell.feature_rows AS stored
            WHERE (known.of_live OR schema.id < 0)
                AND stored.entity = wanted.entity AND stored.schema_id = schema.id
                AND stored.event_time BETWEEN wanted.first_time AND wanted.last_time
                AND stored.topic_id <> %(load)s::uuid
            ORDER BY stored.event_time, stored.sequence
        ) AS row
    ) AS tick
) AS found
WHERE found.ticks > 0 OR live.first_time IS NOT NULL
