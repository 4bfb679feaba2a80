SELECT topic_id::text, partition, "offset", index, topic, reason, detail, value, known_at
FROM tickwell.rejected_ticks
WHERE relayed_at IS NULL
ORDER BY stored_at
LIMIT %s
