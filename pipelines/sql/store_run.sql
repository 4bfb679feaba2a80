SELECT watermark, conflicts FROM tickwell.store_run(
    %(source)s, %(schema)s, %(topic_id)s::uuid, %(topic)s, %(partition)s, %(base)s, %(following)s,
    %(names)s::text[], %(unsettled)s::text[],
    %(rejected_offset)s::bigint[], %(rejected_index)s::integer[],
    %(rejected_reason)s::text[], %(rejected_detail)s::text[],
    %(rejected_key)s::bytea[], %(rejected_value)s::bytea[], %(rejected_known_at)s::bigint[]
)
