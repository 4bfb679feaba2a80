SELECT tickwell.check_rules(
    %(source)s, %(topic_id)s::uuid, %(partition)s, %(following)s, %(rules)s
)
