-- How far the partitions of a source's topic have been stored, as JSON by topic id and partition.
SELECT coalesce(
    jsonb_object_agg(stored.topic_id || '/' || stored.partition, stored.next_offset), '{}'
)
FROM tickwell.watermarks AS stored
JOIN tickwell.sources AS source ON source.definition ->> 'topic' = stored.topic
WHERE source.name = %(source)s
