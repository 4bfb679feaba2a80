SELECT alone, progress, conflicts FROM tickwell.begin_replayed(
    %(replay)s, %(source)s, %(topic_id)s::uuid, %(partition)s, %(base)s, %(unsettled)s::text[]
)
