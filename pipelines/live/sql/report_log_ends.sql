-- Put the ends of some partitions' logs on record, but for those of which a later one is.
INSERT INTO tickwell.log_ends AS told (topic_id, partition, end_offset, reported_at)
SELECT * FROM unnest(
    %(topic_ids)s::uuid[], %(partitions)s::integer[], %(offsets)s::bigint[], %(times)s::bigint[]
) AS ends (topic_id, partition, end_offset, reported_at)
ORDER BY topic_id, partition
ON CONFLICT (topic_id, partition) DO UPDATE
SET end_offset = excluded.end_offset, reported_at = excluded.reported_at
WHERE told.reported_at < excluded.reported_at
