-- Makes entities known that are not; their home is the load until Kafka brings a tick of them.
INSERT INTO tickwell.entities (source, entity, topic_id, partition)
SELECT %(source)s, entity, %(topic_id)s::uuid, %(partition)s
FROM unnest(%(entities)s::text[]) AS entity ORDER BY entity
ON CONFLICT DO NOTHING
