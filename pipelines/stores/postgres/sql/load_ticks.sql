-- The newest ticks of entities, for COPY in binary format: all values have a fixed size, none is null.
-- Of each entity at most `depth`, in however many of the row schemas they are. Of the partition that
-- is read, only ticks before the offset at which the run begins count, and not those before the log's
-- beginning when a replay began cold there. Rows of other incarnations are older; rows of another
-- partition belong to an entity whose home it is.
--
-- A tick may be in any row schema, as a replay stores old ones again in the newest. But where the newest
-- row schemas have enough ticks of an entity, none that is older than all of these is looked for: of
-- each other row schema that takes one step down its index, and not `depth` rows. (Twice as many rows
-- are looked at, since one tick may be in several row schemas; if they are too few ticks all count.)
SELECT wanted.place::integer, newest.*
FROM unnest(%(entities)s::text[]) WITH ORDINALITY AS wanted (entity, place)
CROSS JOIN LATERAL (
    SELECT
        CASE
            WHEN count(*) >= %(depth)s THEN min(tick.event_time)
            ELSE '-9223372036854775808'::bigint
        END AS event_time
    FROM (
        SELECT DISTINCT newer.event_time, newer.sequence
        FROM (
            SELECT stored.event_time, stored.sequence
            FROM unnest(%(schemas)s::integer[]) AS schema (id)
            CROSS JOIN LATERAL (
                SELECT row.event_time, row.sequence FROM tickwell.feature_rows AS row
                WHERE row.entity = wanted.entity AND row.schema_id = schema.id AND row.revision = 0
                    AND (
                        row.topic_id <> %(topic_id)s::uuid OR row.partition <> %(partition)s
                        OR (row."offset" >= %(since)s AND row."offset" < %(before)s)
                    )
                ORDER BY row.event_time DESC, row.sequence DESC
                LIMIT %(depth)s
            ) AS stored
            LIMIT 2 * %(depth)s
        ) AS newer
    ) AS tick
) AS since
CROSS JOIN LATERAL (
    SELECT DISTINCT ON (stored.event_time, stored.sequence)
        stored.event_time, stored.sequence, stored.tick_time,
        coalesce(stored.seq, %(no_seq)s) AS seq, stored.op, stored.fields, stored.topic_id,
        stored.partition, stored."offset", stored.index,
        substring(stored.status FOR 1) = %(closed)s AS closed
    FROM unnest(%(schemas)s::integer[]) AS schema (id)
    CROSS JOIN LATERAL (
        SELECT * FROM tickwell.feature_rows AS row
        WHERE row.entity = wanted.entity AND row.schema_id = schema.id AND row.revision = 0
            AND row.event_time >= since.event_time
            AND (
                row.topic_id <> %(topic_id)s::uuid OR row.partition <> %(partition)s
                OR (row."offset" >= %(since)s AND row."offset" < %(before)s)
            )
        ORDER BY row.event_time DESC, row.sequence DESC
        LIMIT %(depth)s
    ) AS stored
    ORDER BY stored.event_time DESC, stored.sequence DESC
    LIMIT %(depth)s
) AS newest
