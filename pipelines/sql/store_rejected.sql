INSERT INTO tickwell.rejected_ticks (
    topic_id, partition, "offset", index, topic, reason, detail, key, value, known_at
)
SELECT %(topic_id)s::uuid, %(partition)s, tick."offset", tick.index, %(topic)s,
    tick.reason, tick.detail, tick.key, tick.value, tick.known_at
FROM unnest(
    %(rejected_offset)s::bigint[], %(rejected_index)s::integer[],
    %(rejected_reason)s::text[], %(rejected_detail)s::text[],
    %(rejected_key)s::bytea[], %(rejected_value)s::bytea[], %(rejected_known_at)s::bigint[]
) AS tick ("offset", index, reason, detail, key, value, known_at)
ON CONFLICT DO NOTHING
