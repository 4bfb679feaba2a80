-- Of each partition of some topics, in their newest incarnation, the moment up to which all that had
-- arrived is stored, nanoseconds UTC; NULL where that is not known. Either a record of then is stored, and
-- the log's times do not go back, or what is stored reaches an end that the broker named after it.
SELECT
    newest.topic, number.partition, stored.next_offset,
    greatest(
        stored.known_at,
        CASE WHEN told.end_offset <= coalesce(stored.next_offset, 0) THEN told.reported_at END
    )
FROM (
    SELECT DISTINCT ON (topic) topic, topic_id, partitions FROM tickwell.topics
    WHERE topic = ANY (%(topics)s::text[])
    ORDER BY topic, incarnation DESC
) AS newest
CROSS JOIN LATERAL generate_series(0, newest.partitions - 1) AS number (partition)
LEFT JOIN tickwell.watermarks AS stored
    ON stored.topic_id = newest.topic_id AND stored.partition = number.partition
LEFT JOIN tickwell.log_ends AS told
    ON told.topic_id = newest.topic_id AND told.partition = number.partition
ORDER BY newest.topic, number.partition
