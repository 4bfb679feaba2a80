-- The first edits of an entity that were not made yet, with the rejected ticks that they are of.
SELECT rejected.topic_id::text, rejected.partition, rejected."offset", rejected.index,
    rejected.reason, rejected.key, rejected.value, rejected.known_at
FROM tickwell.repair_edits AS edit
JOIN tickwell.rejected_ticks AS rejected USING (topic_id, partition, "offset", index)
WHERE edit.repair = %(repair)s AND edit.entity = %(entity)s AND edit.outcome IS NULL
ORDER BY rejected.known_at, rejected.partition, rejected."offset", rejected.index
LIMIT %(most)s
