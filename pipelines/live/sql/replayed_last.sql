-- The topic of a name that a replay has stored of last and that no worker has read, as far as Postgres
-- knows; and the number of partitions up to the last one that was stored of.
SELECT topic_id, max(partition) + 1 AS partitions FROM tickwell.replays AS replayed
WHERE topic = %(topic)s AND greatest(next_offset, stored_to) > start_offset
    AND NOT EXISTS (
        SELECT FROM tickwell.topics AS known WHERE known.topic_id = replayed.topic_id
    )
GROUP BY topic_id ORDER BY max(began_at) DESC LIMIT 1
