-- The rows of a month that stand where live has not come yet: a replay has stored them.
INSERT INTO tickwell.{name}_kept
SELECT row.* FROM tickwell.{name} AS row
LEFT JOIN tickwell.watermarks AS read
    ON read.topic_id = row.topic_id AND read.partition = row.partition
WHERE row.schema_id > 0 AND row."offset" >= coalesce(read.next_offset, 0)
ON CONFLICT DO NOTHING
