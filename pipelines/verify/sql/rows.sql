-- The rows of entities in a row schema, behind a time and a sequence and before a time, in the order of the
-- ticks, for COPY in binary format; of each entity at most `most`. Arrays are cut and padded to the size
-- that they should have, so that all rows have one size; that of another length has another header.
SELECT
    wanted.number, row.event_time, row.sequence, row.op,
    substring(array_send(row.fields) || %(padding)s FROM 1 FOR %(field_bytes)s),
    substring(array_send(row.features) || %(padding)s FROM 1 FOR %(feature_bytes)s),
    length(row.status),
    substring(row.status || %(padding)s FROM 1 FOR %(features)s)
FROM unnest(
    %(entities)s::text[], %(after_times)s::bigint[], %(after_sequences)s::bigint[],
    %(past_times)s::bigint[]
) WITH ORDINALITY AS wanted (entity, after_time, after_sequence, past_time, number)
CROSS JOIN LATERAL (
    SELECT stored.event_time, stored.sequence, stored.op, stored.fields, stored.features,
        stored.status
    FROM tickwell.feature_rows AS stored
    WHERE stored.entity = wanted.entity AND stored.schema_id = %(schema)s AND stored.revision = 0
        AND stored.event_time >= wanted.after_time
        AND (stored.event_time, stored.sequence) > (wanted.after_time, wanted.after_sequence)
        AND stored.event_time < wanted.past_time
    ORDER BY stored.event_time, stored.sequence LIMIT %(most)s
) AS row
