-- The last stretch of a partition that a backfill reads: where it begins, and what is read next.
SELECT from_offset, next_offset FROM tickwell.backfill_reads
WHERE backfill = %(backfill)s AND topic_id = %(topic)s::uuid AND partition = %(partition)s
ORDER BY from_offset DESC LIMIT 1
