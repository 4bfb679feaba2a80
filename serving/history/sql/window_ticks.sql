-- An entity's tick at a time and a sequence, and those before it, the newest first: of each row schema at
-- most `most`. `closed` says of each whether its row was closed then. A tick that is in several row schemas
-- is there several times. Of loaded ticks only those of some loads count.
SELECT
    stored.schema_id, stored.event_time, stored.sequence, stored.tick_time,
    coalesce(stored.seq_text, stored.seq::text) AS seq, stored.op, stored.fields, stored.known_at,
    stored.topic_id::text, named.topic, stored.partition, stored."offset", stored."index",
    coalesce(substring(stored.status FOR 1) = %(closed)s, false) AS closed,
    stored.features, stored.status
FROM unnest(%(schemas)s::integer[]) AS schema (id)
CROSS JOIN LATERAL (
    SELECT row.* FROM tickwell.feature_rows AS row
    WHERE row.entity = %(entity)s AND row.schema_id = schema.id AND row.revision = 0
        AND (%(loads)s::text[] IS NULL OR row.topic_id = ANY (%(loads)s::uuid[]))
        AND row.event_time <= %(event_time)s
        AND (row.event_time, row.sequence) <= (%(event_time)s, %(sequence)s)
    ORDER BY row.event_time DESC, row.sequence DESC LIMIT %(most)s
) AS stored
LEFT JOIN tickwell.topics AS named ON named.topic_id = stored.topic_id
ORDER BY stored.event_time DESC, stored.sequence DESC, stored.schema_id
