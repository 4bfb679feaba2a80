-- What a month has rows of, by row schema and partition of a topic: the offset behind the last one.
SELECT schema_id, topic_id::text, partition, max("offset") + 1 FROM tickwell.{name}
GROUP BY schema_id, topic_id, partition
