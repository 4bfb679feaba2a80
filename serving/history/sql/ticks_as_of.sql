-- The tick that was an entity's newest one at a moment, by what was known then: of each asked entity
-- and moment, numbered from 0, the row of that tick in each row schema that has it. A tick counts if it
-- happened by `moment` and had arrived by `known`; of equal event times the log's order decides. Only
-- event times after `since` are looked at, so that few months have to be opened. Of one event time the ticks
-- from Kafka stand behind those that were loaded, which know nothing of each other's sequence.
--
-- Each inner query is limited, which keeps it one look into an index. Statuses and values are padded, so
-- that all rows have one size: an array of doubles is sent as 20 bytes and then 12 each.
SELECT
    asked.number, found.schema_id, found.event_time, found.sequence, 0::smallint,
    substring(found.status || %(padding)s FROM 1 FOR %(features)s),
    substring(array_send(found.features) || %(padding)s FROM 21 FOR 12 * %(features)s)
FROM unnest(
    %(numbers)s::integer[], %(entities)s::text[], %(moments)s::bigint[], %(known)s::bigint[],
    %(since)s::bigint[]
) AS asked (number, entity, moment, known, since)
CROSS JOIN LATERAL (
    SELECT stored.*
    FROM unnest(%(schemas)s::integer[]) AS schema (id)
    CROSS JOIN LATERAL (
        SELECT row.schema_id, row.event_time, row.sequence, row.status, row.features
        FROM tickwell.feature_rows AS row
        WHERE row.entity = asked.entity AND row.schema_id = schema.id AND row.revision = 0
            AND row.event_time <= asked.moment AND row.event_time > asked.since
            AND row.known_at <= asked.known
        ORDER BY row.event_time DESC, row.sequence DESC
        LIMIT 1
    ) AS stored
    ORDER BY stored.event_time DESC, sign(stored.schema_id) DESC, stored.sequence DESC
    FETCH FIRST 1 ROW WITH TIES
) AS found
