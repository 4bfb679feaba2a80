SELECT conflicts, inserted FROM tickwell.store_rows(
    %(source)s, %(schema)s, %(topic_id)s::uuid, %(partition)s,
    %(names)s::text[], %(unsettled)s::text[]
)
