-- Moves a partition of a load on, if it is where the run begins, and the load is not given up: that waits for
-- a run that is being stored.
UPDATE tickwell.load_partitions SET
    next_offset = %(following)s, rows = rows + %(rows)s, passed_over = passed_over + %(passed_over)s,
    rejected = rejected + %(rejected)s
WHERE load = %(load)s::uuid AND partition = %(partition)s AND next_offset = %(base)s
    AND EXISTS (
        SELECT FROM tickwell.loads WHERE id = %(load)s::uuid AND forgotten_at IS NULL FOR SHARE
    )
