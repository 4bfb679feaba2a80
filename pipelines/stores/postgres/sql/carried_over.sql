-- The partitions of a topic incarnation of which every entity has a row in a row schema.
SELECT DISTINCT partition FROM tickwell.carried_over
WHERE topic_id = %(topic_id)s::uuid AND schema_id >= %(schema)s
