-- Rejected ticks of a topic that no repair has taken, in the order in which they came.
SELECT rejected.topic_id::text, rejected.partition, rejected."offset", rejected.index,
    rejected.reason, rejected.key, rejected.value, rejected.known_at
FROM tickwell.rejected_ticks AS rejected
WHERE rejected.topic = %(topic)s AND rejected.reason = ANY(%(reasons)s::text[])
    AND rejected.known_at BETWEEN %(since)s AND %(until)s
    AND NOT EXISTS (
        SELECT FROM tickwell.repair_edits AS edit
        WHERE edit.topic_id = rejected.topic_id AND edit.partition = rejected.partition
            AND edit."offset" = rejected."offset" AND edit.index = rejected.index
    )
ORDER BY rejected.known_at, rejected.partition, rejected."offset", rejected.index
LIMIT %(most)s
