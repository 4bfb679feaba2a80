-- The oldest rejected ticks that were not published yet: at most %(ticks)s, and no more than
-- %(bytes)s of values, but for the first one. Of a value its first %(limit)s bytes.
SELECT
    topic_id::text, partition, "offset", index, topic, reason, detail, known_at,
    substring(value FROM 1 FOR %(limit)s), octet_length(value)
FROM (
    SELECT
        waiting.*,
        sum(least(coalesce(octet_length(value), 0), %(limit)s)) OVER (
            ORDER BY stored_at, topic_id, partition, "offset", index
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS before
    FROM (
        SELECT * FROM tickwell.rejected_ticks
        WHERE relayed_at IS NULL ORDER BY stored_at LIMIT %(ticks)s
    ) AS waiting
) AS summed
WHERE coalesce(before, 0) < %(bytes)s
ORDER BY stored_at, topic_id, partition, "offset", index
