-- The next ticks of entities in a row schema, behind a time and a sequence, for COPY in binary format: of
-- each entity and row schema one row with an array of each column, in the order of the ticks. A row a tick
-- costs the server and whoever reads it half as much again. Of each at most `most`; with `whole` from its
-- first one on. Of the partition that is an entity's home only ticks before `end` count, unless `all` that
-- is stored does. A sequence has the operation in its last bits. The value of a field is NULL where a tick
-- has another number of fields than its source.
SELECT wanted.number, row.*
FROM unnest(
    %(entities)s::text[], %(schemas)s::integer[], %(topics)s::uuid[], %(ends)s::bigint[],
    %(after_times)s::bigint[], %(after_sequences)s::bigint[]
) WITH ORDINALITY
    AS wanted (entity, schema_id, topic_id, "end", after_time, after_sequence, number)
CROSS JOIN LATERAL (
    SELECT array_agg(tick.event_time) AS event_times,
        array_agg(tick.sequence << %(op_bits)s | tick.op) AS sequences_and_ops,
        array_agg(CASE cardinality(tick.fields) WHEN %(fields)s THEN tick.fields[%(field)s] END)
            AS values
    FROM (
        SELECT stored.event_time, stored.sequence, stored.op, stored.fields
        FROM tickwell.feature_rows AS stored
        WHERE stored.entity = wanted.entity AND stored.schema_id = wanted.schema_id
            AND stored.revision = 0
            AND (%(whole)s OR stored.event_time >= wanted.after_time)
            AND (
                %(whole)s
                OR (stored.event_time, stored.sequence) > (wanted.after_time, wanted.after_sequence)
            )
            AND (%(all)s OR stored.topic_id <> wanted.topic_id OR stored."offset" < wanted."end")
        ORDER BY stored.event_time, stored.sequence LIMIT %(most)s
    ) AS tick
) AS row
WHERE row.event_times IS NOT NULL
