-- Moves what a backfill has read of a partition, if it runs and is where this process left it.
WITH counted AS (
    UPDATE tickwell.backfills SET ticks = ticks + %(ticks)s
    WHERE id = %(backfill)s AND state = 'running' AND ticks_from = 'kafka'
    RETURNING id
)
UPDATE tickwell.backfill_reads AS read SET next_offset = %(following)s
FROM counted
WHERE read.backfill = counted.id AND read.topic_id = %(topic)s::uuid
    AND read.partition = %(partition)s AND read.from_offset = %(from)s
    AND read.next_offset = %(base)s
