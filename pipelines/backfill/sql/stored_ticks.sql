-- The ticks that entities have as rows in some row schemas, from one tick of each up to another one, for
-- COPY in the form of `read_ticks`. Only the index of the primary key is read where its pages are known to
-- be visible. A tick in two row schemas is there twice.
SELECT wanted.number, row.*
FROM unnest(
    %(entities)s::text[], %(first_times)s::bigint[], %(first_sequences)s::bigint[],
    %(last_times)s::bigint[], %(last_sequences)s::bigint[]
) WITH ORDINALITY
    AS wanted (entity, first_time, first_sequence, last_time, last_sequence, number)
CROSS JOIN LATERAL (
    SELECT array_agg(tick.event_time) AS event_times, array_agg(tick.sequence) AS sequences
    FROM (
        SELECT stored.event_time, stored.sequence
        FROM unnest(%(schemas)s::integer[]) AS of (schema_id)
        CROSS JOIN LATERAL (
            SELECT each.event_time, each.sequence FROM tickwell.feature_rows AS each
            WHERE each.entity = wanted.entity AND each.schema_id = of.schema_id
                AND each.revision = 0
                AND each.event_time BETWEEN wanted.first_time AND wanted.last_time
                AND (each.event_time, each.sequence) >= (wanted.first_time, wanted.first_sequence)
                AND (each.event_time, each.sequence) <= (wanted.last_time, wanted.last_sequence)
            ORDER BY each.event_time, each.sequence
        ) AS stored
    ) AS tick
) AS row
WHERE row.event_times IS NOT NULL
