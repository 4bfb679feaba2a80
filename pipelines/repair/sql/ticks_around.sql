-- The rows of an entity before a tick, the newest first, or from it on, the oldest first, as its sides and
-- directions say: of each row schema at most `most` rows, of all revisions. Features are those of rows
-- that a repair has added in the row schema that is written now; others are computed again. `closed` says
-- whether the entity was closed.
SELECT wanted.number, row.*
FROM unnest(%(schemas)s::integer[]) WITH ORDINALITY AS wanted (schema_id, number)
CROSS JOIN LATERAL (
    SELECT stored.event_time, stored.sequence, stored.revision, stored.tick_time, stored.seq,
        stored.seq_text, stored.op, stored.fields, stored.known_at, stored.topic_id::text,
        stored.partition, stored."offset", stored.index,
        substring(stored.status FOR 1) = %(closed)s AS closed,
        CASE WHEN stored.revision > 0 AND stored.schema_id = %(writing)s THEN stored.features END,
        CASE WHEN stored.revision > 0 AND stored.schema_id = %(writing)s THEN stored.status END
    FROM tickwell.feature_rows AS stored
    WHERE stored.entity = %(entity)s AND stored.schema_id = wanted.schema_id
        AND stored.event_time {side}= %(time)s
        AND (stored.event_time, stored.sequence) {key_side} (%(time)s, %(sequence)s)
    ORDER BY stored.event_time {direction}, stored.sequence {direction}, stored.revision
    LIMIT %(most)s
) AS row
