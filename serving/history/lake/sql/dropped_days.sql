-- The days of a source of which Postgres has let go, numbered from 1970-01-01 on.
SELECT day - date '1970-01-01' AS number FROM tickwell.lake_days
WHERE source = %(source)s AND dropped_at IS NOT NULL
ORDER BY number
