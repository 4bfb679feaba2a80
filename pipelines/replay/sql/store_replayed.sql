SELECT progress, conflicts, inserted FROM tickwell.store_replayed(
    %(replay)s, %(source)s, %(topic_id)s::uuid, %(topic)s, %(partition)s,
    %(base)s, %(following)s, %(unsettled)s::text[],
    %(rejected_offset)s::bigint[], %(rejected_index)s::integer[],
    %(rejected_reason)s::text[], %(rejected_detail)s::text[],
    %(rejected_key)s::bytea[], %(rejected_value)s::bytea[], %(rejected_known_at)s::bigint[]
)
