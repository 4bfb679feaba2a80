-- The entities of a source that have ticked last, of its topic's current incarnation, the last one first:
-- of the first `candidates` by name, by the newest row of each in the row schemas that began last. Those that
-- only a load has are none of them: they have no row of live, and may be more than the others.
SELECT known.entity
FROM (
    SELECT home.entity
    FROM tickwell.entities AS home
    WHERE home.source = %(source)s
        AND NOT EXISTS (SELECT FROM tickwell.loads WHERE loads.id = home.topic_id)
        AND NOT EXISTS (
            SELECT FROM tickwell.topics AS own
            JOIN tickwell.topics AS newer
                ON newer.topic = own.topic AND newer.incarnation > own.incarnation
            WHERE own.topic_id = home.topic_id
        )
    ORDER BY home.entity
    LIMIT %(candidates)s
) AS known
CROSS JOIN LATERAL (
    SELECT max(row.event_time) AS event_time
    FROM (
        SELECT DISTINCT schema_id FROM tickwell.schema_starts
        WHERE schema_id = ANY (%(schemas)s::integer[])
        ORDER BY schema_id DESC LIMIT %(latest)s
    ) AS schema
    CROSS JOIN LATERAL (
        SELECT stored.event_time FROM tickwell.feature_rows AS stored
        WHERE stored.entity = known.entity AND stored.schema_id = schema.schema_id
            AND stored.revision = 0
        ORDER BY stored.event_time DESC LIMIT 1
    ) AS row
) AS newest
WHERE newest.event_time IS NOT NULL
ORDER BY newest.event_time DESC, known.entity
LIMIT %(most)s
