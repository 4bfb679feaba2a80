-- The rows of a day in some row schemas of a source, in the order of the files, for COPY in binary format.
-- Texts, arrays and statuses are padded, so that all rows have one size: an array of doubles is sent as
-- 20 bytes and then 12 each. The lengths say what was cut off.
SELECT
    stored.schema_id, stored.event_time, stored.sequence, stored.revision, stored.tick_time,
    coalesce(stored.seq, 0), stored.seq IS NOT NULL, stored.op, stored.known_at, stored.topic_id,
    stored.partition, stored."offset", stored.index,
    cardinality(stored.fields), cardinality(stored.features), octet_length(stored.status),
    octet_length(stored.entity), coalesce(octet_length(stored.seq_text), -1),
    substring(convert_to(stored.entity, 'UTF8') || %(padding)s FROM 1 FOR %(entity_bytes)s),
    substring(
        convert_to(coalesce(stored.seq_text, ''), 'UTF8') || %(padding)s
        FROM 1 FOR %(seq_text_bytes)s
    ),
    substring(array_send(stored.fields) || %(padding)s FROM 21 FOR 12 * %(fields)s),
    substring(array_send(stored.features) || %(padding)s FROM 21 FOR 12 * %(features)s),
    substring(stored.status || %(padding)s FROM 1 FOR %(features)s)
FROM tickwell.feature_rows AS stored
WHERE stored.schema_id = ANY (%(schemas)s)
    AND stored.event_time >= %(begin)s AND stored.event_time < %(end)s
ORDER BY stored.schema_id, stored.entity, stored.event_time, stored.sequence, stored.revision
