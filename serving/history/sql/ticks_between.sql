-- The rows of some entities, numbered from 0, each of its own stretch of time, and no more than a limit.
-- Statuses and values are padded, so that all rows have one size: an array of doubles is sent as 20 bytes
-- and then 12 each.
SELECT
    asked.number, row.schema_id, row.event_time, row.sequence, row.known_at,
    substring(row.status || %(padding)s FROM 1 FOR %(features)s),
    substring(array_send(row.features) || %(padding)s FROM 21 FOR 12 * %(features)s)
FROM unnest(
    %(numbers)s::integer[], %(entities)s::text[], %(since)s::bigint[], %(until)s::bigint[]
) AS asked (number, entity, since, until)
JOIN tickwell.feature_rows AS row
    ON row.entity = asked.entity AND row.event_time > asked.since AND row.event_time <= asked.until
WHERE row.schema_id = ANY (%(schemas)s::integer[]) AND row.revision = 0
    AND row.event_time > %(first)s AND row.event_time <= %(last)s
LIMIT %(most)s
