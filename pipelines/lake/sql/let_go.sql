-- Puts on record which days were let go of, and from which offsets on rows give whole states.
UPDATE tickwell.lake_days SET dropped_at = clock_timestamp()
WHERE day >= %(first)s AND day < %(following)s;
INSERT INTO tickwell.dropped_offsets AS known (topic_id, partition, next_offset)
SELECT topic_id, partition, max(next_offset)
FROM unnest(%(topics)s::uuid[], %(partitions)s::integer[], %(offsets)s::bigint[])
    AS found (topic_id, partition, next_offset)
GROUP BY topic_id, partition
ON CONFLICT (topic_id, partition)
    DO UPDATE SET next_offset = greatest(known.next_offset, excluded.next_offset)
