-- A few entities of a source, of the topic's current incarnation, that have ticked in it.
SELECT known.entity, known.partition, known.topic_id::text
FROM tickwell.entities AS known
JOIN tickwell.topics AS current ON current.topic_id = known.topic_id
WHERE known.source = %(source)s
    AND NOT EXISTS (
        SELECT FROM tickwell.topics AS newer
        WHERE newer.topic = current.topic AND newer.incarnation > current.incarnation
    )
ORDER BY known.entity
LIMIT %(most)s
