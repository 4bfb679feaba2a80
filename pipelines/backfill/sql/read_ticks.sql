-- The next ticks of entities behind a time and a sequence of each, for COPY in binary format: all values
-- have a fixed size, none is null. Of each entity and row schema at most `most`; and where `before` is
-- not 0, so many of the ticks up to that time. Of the partition that is an entity's home only ticks
-- before `end` count: what a replay stored beyond it, live had not read yet.
SELECT wanted.place::integer, schema.id, row.*
FROM unnest(
    %(entities)s::text[], %(topics)s::uuid[], %(ends)s::bigint[],
    %(after_times)s::bigint[], %(after_sequences)s::bigint[]
) WITH ORDINALITY AS wanted (entity, topic_id, "end", after_time, after_sequence, place)
CROSS JOIN unnest(%(schemas)s::integer[]) AS schema (id)
CROSS JOIN LATERAL (
    (
        SELECT * FROM (
            SELECT stored.event_time, stored.sequence, stored.op,
                substring(stored.status FOR 1) = %(closed)s AS closed, stored.fields
            FROM tickwell.feature_rows AS stored
            WHERE %(before)s > 0
                AND stored.entity = wanted.entity AND stored.schema_id = schema.id
                AND stored.revision = 0
                AND stored.event_time <= wanted.after_time
                AND (stored.event_time, stored.sequence)
                    <= (wanted.after_time, wanted.after_sequence)
                AND (stored.topic_id <> wanted.topic_id OR stored."offset" < wanted."end")
            ORDER BY stored.event_time DESC, stored.sequence DESC LIMIT %(before)s
        ) AS earlier
        ORDER BY earlier.event_time, earlier.sequence
    )
    UNION ALL
    (
        SELECT stored.event_time, stored.sequence, stored.op, false, stored.fields
        FROM tickwell.feature_rows AS stored
        WHERE stored.entity = wanted.entity AND stored.schema_id = schema.id
            AND stored.revision = 0
            AND stored.event_time >= wanted.after_time
            AND (stored.event_time, stored.sequence) > (wanted.after_time, wanted.after_sequence)
            AND (stored.topic_id <> wanted.topic_id OR stored."offset" < wanted."end")
        ORDER BY stored.event_time, stored.sequence LIMIT %(most)s
    )
) AS row
