-- Removes the blocks of backfilled values that lie wholly in a month, and have no tick whose row was kept:
-- the lake's files have their values.
DELETE FROM tickwell.backfilled_blocks AS block
USING tickwell.backfills AS made
JOIN tickwell.feature_versions AS feature USING (name, version)
WHERE made.id = abs(block.backfill) AND made.state = 'complete'
    AND feature.definition ->> 'source' = ANY (%(sources)s::text[])
    AND block.first_event_time >= %(low)s AND block.last_event_time < %(high)s
    AND NOT EXISTS (
        SELECT FROM unnest(%(schemas)s::integer[]) AS schema (id)
        JOIN tickwell.feature_rows AS row
            ON row.entity = block.entity AND row.schema_id = schema.id AND row.revision = 0
                AND row.event_time BETWEEN block.first_event_time AND block.last_event_time
        WHERE sign(schema.id) = sign(block.backfill)
    )
