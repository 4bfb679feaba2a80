-- The loads whose ticks are in the windows of a loaded tick: those that had begun when its own did, or,
-- where a backfill computed the value, when that was done. What is loaded later changes no window.
SELECT load.id::text FROM tickwell.loads AS load
WHERE load.source = %(source)s AND load.began_at <= CASE
    WHEN %(backfill)s::integer IS NULL
    THEN (SELECT own.began_at FROM tickwell.loads AS own WHERE own.id = %(load)s::uuid)
    ELSE (SELECT finished_at FROM tickwell.backfills WHERE id = %(backfill)s)
END
