-- Begins to read a partition at an offset for a backfill that runs; one that was begun there stays.
INSERT INTO tickwell.backfill_reads (backfill, topic_id, partition, from_offset, next_offset)
SELECT id, %(topic)s::uuid, %(partition)s, %(from)s, %(from)s FROM tickwell.backfills
WHERE id = %(backfill)s AND state = 'running' AND ticks_from = 'kafka'
ON CONFLICT DO NOTHING
