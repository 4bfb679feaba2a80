-- When ticks were published, %(at)s: "now" or "epoch".
UPDATE tickwell.rejected_ticks SET relayed_at = %(at)s::timestamptz
WHERE (topic_id, partition, "offset", index) IN (
    SELECT * FROM unnest(
        %(topic_ids)s::uuid[], %(partitions)s::integer[], %(offsets)s::bigint[],
        %(indexes)s::integer[]
    )
)
