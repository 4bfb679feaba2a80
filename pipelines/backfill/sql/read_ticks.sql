-- The next ticks of entities in a row schema, behind a time and a sequence, for COPY in binary format: all
-- values have a fixed size. Of each at most `most`. Of the partition that is an entity's home only ticks
-- before `end` count, unless `all` that is stored does. The value of a field is NULL where a tick has
-- another number of fields than its source.
SELECT wanted.number, row.*
FROM unnest(
    %(entities)s::text[], %(schemas)s::integer[], %(topics)s::uuid[], %(ends)s::bigint[],
    %(after_times)s::bigint[], %(after_sequences)s::bigint[]
) WITH ORDINALITY
    AS wanted (entity, schema_id, topic_id, "end", after_time, after_sequence, number)
CROSS JOIN LATERAL (
    SELECT stored.event_time, stored.sequence, stored.op,
        CASE cardinality(stored.fields) WHEN %(fields)s THEN stored.fields[%(field)s] END
    FROM tickwell.feature_rows AS stored
    WHERE stored.entity = wanted.entity AND stored.schema_id = wanted.schema_id
        AND stored.revision = 0
        AND stored.event_time >= wanted.after_time
        AND (stored.event_time, stored.sequence) > (wanted.after_time, wanted.after_sequence)
        AND (%(all)s OR stored.topic_id <> wanted.topic_id OR stored."offset" < wanted."end")
    ORDER BY stored.event_time, stored.sequence LIMIT %(most)s
) AS row
