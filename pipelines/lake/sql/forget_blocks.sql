-- Removes the blocks of backfilled values of which Postgres has no tick any more: the lake's files have them.
DELETE FROM tickwell.backfilled_blocks AS block
USING tickwell.backfills AS made
JOIN tickwell.feature_versions AS feature USING (name, version)
WHERE made.id = abs(block.backfill) AND made.state = 'complete'
    AND feature.definition ->> 'source' = %(source)s
    AND block.last_event_time < tickwell.rows_since(%(source)s)
    AND NOT EXISTS (
        SELECT FROM tickwell.row_schemas AS schema
        JOIN tickwell.feature_rows AS row
            ON row.entity = block.entity AND row.schema_id = sign(block.backfill) * schema.id
                AND row.revision = 0
                AND row.event_time BETWEEN block.first_event_time AND block.last_event_time
        WHERE schema.source = %(source)s
    )
