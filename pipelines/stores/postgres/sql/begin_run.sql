SELECT watermark, conflicts FROM tickwell.begin_run(
    %(source)s, %(topic_id)s::uuid, %(topic)s, %(partition)s, %(base)s,
    %(unsettled)s::text[], %(patience)s
)
