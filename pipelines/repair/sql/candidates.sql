-- Rejected ticks of a topic that no repair has taken, behind one of them, in the order in which they came.
SELECT rejected.topic_id::text, rejected.partition, rejected."offset", rejected.index,
    rejected.reason, rejected.key, rejected.value, rejected.known_at
FROM tickwell.rejected_ticks AS rejected
WHERE rejected.topic = %(topic)s AND rejected.reason = ANY(%(reasons)s::text[])
    AND rejected.known_at BETWEEN %(since)s AND %(until)s
    AND (
        rejected.known_at, rejected.partition, rejected."offset", rejected.index, rejected.topic_id
    ) > (
        %(after_known_at)s, %(after_partition)s, %(after_offset)s, %(after_index)s,
        %(after_topic_id)s::uuid
    )
    AND NOT EXISTS (
        SELECT FROM tickwell.repair_edits AS edit
        WHERE edit.topic_id = rejected.topic_id AND edit.partition = rejected.partition
            AND edit."offset" = rejected."offset" AND edit.index = rejected.index
    )
ORDER BY
    rejected.known_at, rejected.partition, rejected."offset", rejected.index, rejected.topic_id
LIMIT %(most)s
