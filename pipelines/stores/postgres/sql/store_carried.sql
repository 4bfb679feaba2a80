-- One row more of the newest ticks of entities, in a newer row schema: everything but the values is as
-- the tick is stored. Where that has such a row already, as by a replay, it stays.
INSERT INTO tickwell.feature_rows (
    schema_id, entity, event_time, sequence, revision, tick_time, seq, seq_text, op, fields,
    features, status, known_at, topic_id, partition, "offset", index
)
SELECT
    %(schema)s, row.entity, row.event_time, row.sequence, row.revision, row.tick_time, row.seq,
    row.seq_text, row.op, row.fields, carried.features::double precision[], carried.status,
    row.known_at, row.topic_id, row.partition, row."offset", row.index
FROM unnest(
    %(entities)s::text[], %(event_times)s::bigint[], %(sequences)s::bigint[],
    %(features)s::text[], %(statuses)s::bytea[]
) AS carried (entity, event_time, sequence, features, status)
CROSS JOIN LATERAL (
    SELECT * FROM tickwell.feature_rows AS stored
    WHERE stored.entity = carried.entity
        AND stored.schema_id IN (SELECT id FROM tickwell.row_schemas WHERE source = %(source)s)
        AND stored.event_time = carried.event_time AND stored.sequence = carried.sequence
        AND stored.revision = 0
    ORDER BY stored.schema_id DESC LIMIT 1
) AS row
WHERE row.schema_id < %(schema)s
ORDER BY row.entity
ON CONFLICT DO NOTHING
