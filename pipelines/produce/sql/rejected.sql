-- The rejected ticks of some ranges of offsets, by reason, with one of them as an example.
SELECT reason, count(*), min(detail)
FROM unnest(%(partitions)s::int[], %(starts)s::bigint[], %(ends)s::bigint[])
    AS sent (partition, start, behind)
JOIN tickwell.rejected_ticks AS rejected
    ON rejected.topic_id = %(topic_id)s::uuid
    AND rejected.partition = sent.partition
    AND rejected."offset" >= sent.start
    AND rejected."offset" < sent.behind
GROUP BY reason
ORDER BY count(*) DESC, reason
