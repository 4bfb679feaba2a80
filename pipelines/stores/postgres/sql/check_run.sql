SELECT
    tickwell.check_rules(
        %(source)s, %(topic_id)s::uuid, %(partition)s, %(following)s, %(rules)s
    ),
    tickwell.check_schema(%(source)s, %(schema)s)
