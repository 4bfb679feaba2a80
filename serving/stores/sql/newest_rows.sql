-- The newest row of each wanted entity: of its newest tick, in the newest row schema that has it, as
-- Redis holds it. `number` counts the wanted ones from 1; an entity without rows is not there. Only
-- the event times from `since` and before `until` are looked at: each month is an index to look into.
-- That each inner query is limited keeps it one look into an index an entity, whatever the planner
-- believes of tables that were not analyzed yet.
SELECT
    wanted.number::integer, newest.schema_id, newest.event_time, newest.sequence, newest.known_at,
    uuid_send(newest.topic_id), newest.partition, newest."offset", newest.index, newest.status,
    array_send(newest.features)
FROM unnest(%(sources)s::text[], %(entities)s::text[]) WITH ORDINALITY
    AS wanted (source, entity, number)
CROSS JOIN LATERAL (
    SELECT stored.*
    FROM tickwell.row_schemas AS schema
    CROSS JOIN LATERAL (
        SELECT * FROM tickwell.feature_rows AS row
        WHERE row.entity = wanted.entity AND row.schema_id = schema.id AND row.revision = 0
            AND row.event_time >= %(since)s AND row.event_time < %(until)s
        ORDER BY row.event_time DESC, row.sequence DESC
        LIMIT 1
    ) AS stored
    WHERE schema.source = wanted.source
    ORDER BY stored.event_time DESC, stored.sequence DESC, stored.schema_id DESC
    LIMIT 1
) AS newest
