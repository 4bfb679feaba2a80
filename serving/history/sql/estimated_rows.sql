EXPLAIN (FORMAT JSON) SELECT FROM tickwell.feature_rows AS row
WHERE row.schema_id = ANY (%(schemas)s::integer[]) AND row.revision = 0
    AND row.event_time > %(first)s AND row.event_time <= %(last)s
