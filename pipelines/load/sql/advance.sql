-- Moves a partition of a load on, if it is where the run begins.
UPDATE tickwell.load_partitions SET
    next_offset = %(following)s, rows = rows + %(rows)s, passed_over = passed_over + %(passed_over)s,
    rejected = rejected + %(rejected)s
WHERE load = %(load)s::uuid AND partition = %(partition)s AND next_offset = %(base)s
