-- The newest ticks of an entity up to a time and a sequence, oldest first, for COPY in binary format: all
-- values have a fixed size. Of each row schema at most `before`. `closed` says of each whether its row was
-- closed then. The value is that of `read_ticks`.
SELECT wanted.number, row.event_time, row.sequence, row.op, row.value, row.closed
FROM unnest(%(schemas)s::integer[]) WITH ORDINALITY AS wanted (schema_id, number)
CROSS JOIN LATERAL (
    SELECT stored.event_time, stored.sequence, stored.op,
        CASE cardinality(stored.fields) WHEN %(fields)s THEN stored.fields[%(field)s] END AS value,
        substring(stored.status FOR 1) = %(closed)s AS closed
    FROM tickwell.feature_rows AS stored
    WHERE stored.entity = %(entity)s AND stored.schema_id = wanted.schema_id
        AND stored.revision = 0
        AND stored.event_time <= %(time)s
        AND (stored.event_time, stored.sequence) <= (%(time)s, %(sequence)s)
        AND (%(all)s OR stored.topic_id <> %(topic)s::uuid OR stored."offset" < %(end)s)
    ORDER BY stored.event_time DESC, stored.sequence DESC LIMIT %(before)s
) AS row
