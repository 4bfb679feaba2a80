-- Takes away rows of a load of some entities, no more than a limit, and says their event times.
DELETE FROM tickwell.feature_rows AS gone
USING (
    SELECT row.entity, row.event_time, row.sequence
    FROM unnest(%(entities)s::text[]) AS wanted (entity)
    JOIN tickwell.feature_rows AS row
        ON row.entity = wanted.entity AND row.schema_id = %(schema)s
            AND row.event_time BETWEEN %(first)s AND %(last)s
            AND row.topic_id = %(load)s::uuid
    LIMIT %(most)s
) AS found
WHERE gone.entity = found.entity AND gone.schema_id = %(schema)s
    AND gone.event_time = found.event_time AND gone.sequence = found.sequence AND gone.revision = 0
RETURNING gone.event_time
