-- The next offset to read of each partition of a topic, over all its incarnations.
SELECT topic_id::text, partition, next_offset FROM tickwell.watermarks WHERE topic = %(topic)s
