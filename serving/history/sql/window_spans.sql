-- When the tick was that stands `lookback` ticks before each of these: their windows share no tick. NULL
-- where an entity has fewer. A tick that is in several row schemas counts once.
SELECT asked.number, (
    SELECT found.event_time FROM (
        SELECT DISTINCT of_schema.event_time, of_schema.sequence
        FROM unnest(CAST(%(schemas)s AS integer[])) AS schema (id)
        CROSS JOIN LATERAL (
            SELECT feature_rows.event_time, feature_rows.sequence FROM tickwell.feature_rows
            WHERE feature_rows.entity = asked.entity AND feature_rows.schema_id = schema.id
                AND feature_rows.event_time <= asked.event_time AND feature_rows.revision = 0
            ORDER BY feature_rows.event_time DESC, feature_rows.sequence DESC
            LIMIT %(lookback)s + 1
        ) AS of_schema
    ) AS found
    ORDER BY found.event_time DESC, found.sequence DESC
    OFFSET %(lookback)s LIMIT 1
) AS event_time
FROM unnest(
    CAST(%(numbers)s AS integer[]), CAST(%(entities)s AS text[]), CAST(%(event_times)s AS bigint[])
) AS asked (number, entity, event_time)
