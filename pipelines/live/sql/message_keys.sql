-- Message keys of a source's entities, which are their first key fields, and where they are at home.
SELECT DISTINCT split_part(entity, chr(31), 1) AS key, partition FROM tickwell.entities
WHERE source = %(source)s AND topic_id = %(topic_id)s::uuid
