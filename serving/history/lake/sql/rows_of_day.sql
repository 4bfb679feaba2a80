-- The rows of some entities, which have numbers, in a stretch of time, and no more than a limit. Statuses
-- and values are padded, so that all rows have one size: an array of doubles is sent as 20 bytes and then
-- 12 each.
SELECT
    asked.number, row.schema_id, row.event_time, row.sequence, row.revision, row.op, row.known_at,
    substring(row.status || %(padding)s FROM 1 FOR %(features)s),
    substring(array_send(row.features) || %(padding)s FROM 21 FOR 12 * %(features)s)
FROM tickwell.feature_rows AS row
JOIN unnest(%(numbers)s::integer[], %(entities)s::text[]) AS asked (number, entity)
    ON asked.entity = row.entity
WHERE row.schema_id = ANY (%(schemas)s::integer[]) AND row.revision <= %(revision)s
    AND row.event_time >= %(begin)s AND row.event_time < %(end)s
LIMIT %(most)s
