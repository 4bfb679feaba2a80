-- The same as `ticks_as_of`, with the repairs that were known by `known`: of the newest tick that was not
-- cancelled by then its newest revision, which is in one row schema or in several: the one that became
-- known last, since where windows got longer an earlier repair may have a later number. A cancel of a tick from
-- Kafka takes away what was loaded at its key, too: it may be the same tick, and no edit can name that one.
SELECT
    asked.number, found.schema_id, found.event_time, found.sequence, found.revision,
    substring(found.status || %(padding)s FROM 1 FOR %(features)s),
    substring(array_send(found.features) || %(padding)s FROM 21 FOR 12 * %(features)s)
FROM unnest(
    %(numbers)s::integer[], %(entities)s::text[], %(moments)s::bigint[], %(known)s::bigint[],
    %(since)s::bigint[]
) AS asked (number, entity, moment, known, since)
CROSS JOIN LATERAL (
    SELECT of_schema.event_time, of_schema.sequence, sign(schema.id) AS kind
    FROM unnest(%(schemas)s::integer[]) AS schema (id)
    CROSS JOIN LATERAL (
        SELECT row.event_time, row.sequence
        FROM tickwell.feature_rows AS row
        WHERE row.entity = asked.entity AND row.schema_id = schema.id
            AND row.event_time <= asked.moment AND row.event_time > asked.since
            AND row.known_at <= asked.known
            AND NOT EXISTS (
                SELECT FROM unnest(%(schemas)s::integer[]) AS other (id)
                JOIN tickwell.feature_rows AS gone
                    ON gone.entity = row.entity AND gone.schema_id = other.id
                        AND gone.event_time = row.event_time AND gone.sequence = row.sequence
                        AND gone.revision > 0 AND gone.op = %(cancelled)s
                        AND gone.known_at <= asked.known
            )
        ORDER BY row.event_time DESC, row.sequence DESC
        LIMIT 1
    ) AS of_schema
    ORDER BY of_schema.event_time DESC, kind DESC, of_schema.sequence DESC
    LIMIT 1
) AS tick
CROSS JOIN LATERAL (
    SELECT stored.*
    FROM unnest(%(schemas)s::integer[]) AS schema (id)
    CROSS JOIN LATERAL (
        SELECT row.schema_id, row.event_time, row.sequence, row.revision, row.status, row.features,
            CASE WHEN row.revision > 0 THEN row.known_at END AS revised_at
        FROM tickwell.feature_rows AS row
        WHERE row.entity = asked.entity AND row.schema_id = schema.id
            AND sign(schema.id) = tick.kind AND row.event_time = tick.event_time AND row.sequence = tick.sequence
            AND row.known_at <= asked.known
        ORDER BY revised_at DESC NULLS LAST, row.revision DESC
        LIMIT 1
    ) AS stored
    ORDER BY stored.revised_at DESC NULLS LAST, stored.revision DESC
    FETCH FIRST 1 ROW WITH TIES
) AS found
