-- How many values the lake's files have of days that Postgres let go of, from a time on.
SELECT coalesce(sum(file.rows * cardinality(schema.features)), 0)
FROM tickwell.lake_days AS written
JOIN tickwell.lake_files AS file USING (source, day)
JOIN tickwell.row_schemas AS schema ON schema.id = file.schema_id
WHERE written.dropped_at IS NOT NULL
    AND (
        %(since)s::bigint IS NULL
        OR extract(epoch FROM written.day + 1)::bigint > %(since)s::bigint / 1000000000
    )
