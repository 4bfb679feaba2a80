-- The edits of an entity that later ticks may have in their windows, and those that a newer row schema
-- lacks, in the order in which they became known.
SELECT topic_id::text, partition, "offset", index, event_time, sequence, repairs.known_at
FROM tickwell.repair_edits
JOIN tickwell.repairs ON repairs.id = repair_edits.repair
WHERE repairs.source = %(source)s AND entity = %(entity)s AND outcome = %(made)s
    AND (open OR settled_in < %(schema)s)
ORDER BY repairs.known_at, event_time, sequence
