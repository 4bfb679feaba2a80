SELECT
    tickwell.check_rules(
        %(source)s, %(topic_id)s::uuid, %(partition)s, %(following)s, %(rules)s
    ),
    tickwell.begin_schema(
        %(source)s, %(schema)s, %(topic_id)s::uuid, %(partition)s, %(base)s
    )
