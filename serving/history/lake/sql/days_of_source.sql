-- The days of a source that have rows, numbered from 1970-01-01 on: whether the lake's files have what was
-- stored of them, whether Postgres has let go of them, and the files, by row schema.
SELECT
    day - date '1970-01-01' AS number,
    coalesce(changed.changes = written.changes, false) AS whole,
    written.dropped_at IS NOT NULL AS dropped,
    coalesce(files.schemas, '{}'), coalesce(files.paths, '{}'), coalesce(files.rows, '{}'),
    coalesce(files.bytes, '{}')
FROM (
    SELECT day, sum(changes)::bigint AS changes FROM tickwell.day_changes
    WHERE source = %(source)s GROUP BY day
) AS changed
FULL JOIN (
    SELECT day, changes, dropped_at FROM tickwell.lake_days WHERE source = %(source)s
) AS written USING (day)
LEFT JOIN LATERAL (
    SELECT array_agg(schema_id ORDER BY schema_id) AS schemas,
        array_agg(path ORDER BY schema_id) AS paths,
        array_agg(rows ORDER BY schema_id) AS rows,
        array_agg(bytes ORDER BY schema_id) AS bytes
    FROM tickwell.lake_files AS file WHERE file.source = %(source)s AND file.day = written.day
) AS files ON true
ORDER BY number
