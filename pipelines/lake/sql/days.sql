-- The days of all sources that have rows, with how often they were changed, by now and by the time at
-- which the lake's files were written, and the files: of each its row schema, path and columns.
SELECT
    changed.source, changed.day, changed.changes, written.changes AS written,
    written.dropped_at IS NOT NULL, coalesce(written.exported_at > written.dropped_at, false),
    coalesce(files.schemas, '{}'), coalesce(files.paths, '{}'), coalesce(files.columns, '{}'),
    coalesce(files.rows, '{}'), coalesce(files.bytes, '{}'),
    coalesce(files.digests, '{}'), coalesce(files.moving, '{}')
FROM (
    SELECT source, day, sum(changes)::bigint AS changes
    FROM tickwell.day_changes
    WHERE (%(source)s::text IS NULL OR source = %(source)s)
        AND (%(day)s::date IS NULL OR day = %(day)s)
    GROUP BY source, day
) AS changed
LEFT JOIN tickwell.lake_days AS written USING (source, day)
LEFT JOIN LATERAL (
    SELECT array_agg(schema_id ORDER BY schema_id) AS schemas,
        array_agg(path ORDER BY schema_id) AS paths,
        array_agg(encode(columns, 'hex') ORDER BY schema_id) AS columns,
        array_agg(rows ORDER BY schema_id) AS rows,
        array_agg(bytes ORDER BY schema_id) AS bytes,
        array_agg(encode(sha256, 'hex') ORDER BY schema_id) AS digests,
        array_agg(coalesce(encode(moving, 'hex'), '') ORDER BY schema_id) AS moving
    FROM tickwell.lake_files AS file
    WHERE file.source = changed.source AND file.day = changed.day
) AS files ON true
ORDER BY changed.day, changed.source
