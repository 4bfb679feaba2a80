-- The days between two of which rows were stored since their files were written.
SELECT changed.source, changed.day
FROM (
    SELECT source, day, sum(changes)::bigint AS changes FROM tickwell.day_changes
    WHERE day >= %(first)s AND day < %(following)s
    GROUP BY source, day
) AS changed
LEFT JOIN tickwell.lake_days AS written USING (source, day)
WHERE changed.changes IS DISTINCT FROM written.changes
ORDER BY changed.day, changed.source
