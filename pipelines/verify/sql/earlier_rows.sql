-- The same of the newest rows up to a time and a sequence, newest first: those in the windows of later ones.
SELECT
    wanted.number, row.event_time, row.sequence, row.op,
    substring(array_send(row.fields) || %(padding)s FROM 1 FOR %(field_bytes)s),
    substring(array_send(row.features) || %(padding)s FROM 1 FOR %(feature_bytes)s),
    length(row.status),
    substring(row.status || %(padding)s FROM 1 FOR %(features)s)
FROM unnest(
    %(entities)s::text[], %(after_times)s::bigint[], %(after_sequences)s::bigint[]
) WITH ORDINALITY AS wanted (entity, after_time, after_sequence, number)
CROSS JOIN LATERAL (
    SELECT stored.event_time, stored.sequence, stored.op, stored.fields, stored.features,
        stored.status
    FROM tickwell.feature_rows AS stored
    WHERE stored.entity = wanted.entity AND stored.schema_id = %(schema)s AND stored.revision = 0
        AND stored.event_time <= wanted.after_time
        AND (stored.event_time, stored.sequence) <= (wanted.after_time, wanted.after_sequence)
    ORDER BY stored.event_time DESC, stored.sequence DESC LIMIT %(before)s
) AS row
