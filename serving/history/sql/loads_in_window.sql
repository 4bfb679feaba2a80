-- The loads whose ticks are in the windows of a loaded tick: its own, and those that were done when its own
-- began, or, where a backfill computed the value, those that had begun when that was done. What is loaded
-- later changes no window.
SELECT load.id::text FROM tickwell.loads AS load
WHERE load.source = %(source)s AND CASE
    WHEN %(backfill)s::integer IS NULL
    THEN load.id = %(load)s::uuid OR load.finished_at
        <= (SELECT own.began_at FROM tickwell.loads AS own WHERE own.id = %(load)s::uuid)
    ELSE load.began_at
        <= (SELECT finished_at FROM tickwell.backfills WHERE id = %(backfill)s)
END
