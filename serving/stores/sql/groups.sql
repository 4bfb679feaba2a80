-- The entities of groups, each group a range of names. Of each group, by its number from 1: how many of
-- its entities are open, the first of these by name, and which of the others was closed last. Old months
-- are looked at only for what has no row in the new ones.
SELECT
    wanted.number::integer,
    count(*) FILTER (WHERE NOT newest.is_closed),
    (array_agg(known.entity ORDER BY known.entity) FILTER (WHERE NOT newest.is_closed))[:%(most)s],
    (
        array_agg(known.entity ORDER BY newest.event_time DESC, known.entity DESC)
        FILTER (WHERE newest.is_closed)
    )[1]
FROM unnest(%(sources)s::text[], %(firsts)s::text[], %(ends)s::text[]) WITH ORDINALITY
    AS wanted (source, first, past, number)
JOIN tickwell.entities AS known
    ON known.source = wanted.source
        AND known.entity >= wanted.first COLLATE "C" AND known.entity < wanted.past COLLATE "C"
CROSS JOIN LATERAL (
    SELECT stored.event_time, substring(stored.status FOR 1) = %(closed)s AS is_closed
    FROM tickwell.row_schemas AS schema
    LEFT JOIN LATERAL (
        SELECT row.event_time, row.sequence, row.status FROM tickwell.feature_rows AS row
        WHERE row.entity = known.entity AND row.schema_id = schema.id AND row.revision = 0
            AND row.event_time >= %(late)s
        ORDER BY row.event_time DESC, row.sequence DESC
        LIMIT 1
    ) AS late ON true
    LEFT JOIN LATERAL (
        SELECT row.event_time, row.sequence, row.status FROM tickwell.feature_rows AS row
        WHERE late.event_time IS NULL
            AND row.entity = known.entity AND row.schema_id = schema.id AND row.revision = 0
            AND row.event_time < %(late)s
        ORDER BY row.event_time DESC, row.sequence DESC
        LIMIT 1
    ) AS early ON true
    CROSS JOIN LATERAL (
        SELECT
            coalesce(late.event_time, early.event_time) AS event_time,
            coalesce(late.sequence, early.sequence) AS sequence,
            coalesce(late.status, early.status) AS status
    ) AS stored
    WHERE schema.source = wanted.source AND stored.event_time IS NOT NULL
    ORDER BY stored.event_time DESC, stored.sequence DESC, schema.id DESC
    LIMIT 1
) AS newest
GROUP BY wanted.number
