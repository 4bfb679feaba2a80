-- How far Postgres has stored each partition.
SELECT topic_id::text, partition, next_offset FROM tickwell.watermarks
