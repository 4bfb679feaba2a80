-- The newest loaded ticks of entities up to a time, for COPY in the form of `load_ticks`: those of loads that
-- were done when this one began, and of this one those before the offset at which the run begins.
SELECT wanted.place::integer, newest.*
FROM unnest(%(entities)s::text[], %(until)s::bigint[]) WITH ORDINALITY
    AS wanted (entity, until, place)
CROSS JOIN LATERAL (
    SELECT stored.event_time, stored.sequence, stored.tick_time,
        coalesce(stored.seq, %(no_seq)s) AS seq, stored.op, stored.fields, stored.topic_id,
        stored.partition, stored."offset", stored.index,
        substring(stored.status FOR 1) = %(closed)s AS closed
    FROM (
        SELECT DISTINCT ON (each.event_time, each.sequence) each.*
        FROM unnest(%(schemas)s::integer[]) AS schema (id)
        CROSS JOIN LATERAL (
            SELECT * FROM tickwell.feature_rows AS row
            WHERE row.entity = wanted.entity AND row.schema_id = schema.id AND row.revision = 0
                AND row.event_time <= wanted.until
                AND (
                    row.topic_id = ANY (%(earlier)s::uuid[])
                    OR row.topic_id = %(topic_id)s::uuid AND row."offset" < %(before)s
                )
            ORDER BY row.event_time DESC, row.sequence DESC
            LIMIT %(depth)s
        ) AS each
        ORDER BY each.event_time DESC, each.sequence DESC
        LIMIT %(depth)s
    ) AS stored
) AS newest
