-- Entities whose home is a load, of whose rows none is left: another load that has rows of them is their home
-- now, and those that nobody has are not known any more. The partition is the same one in all loads.
WITH homeless AS (
    SELECT known.entity, other.topic_id
    FROM tickwell.entities AS known
    LEFT JOIN LATERAL (
        SELECT row.topic_id
        FROM unnest(%(loaded)s::integer[]) AS schema (id)
        CROSS JOIN LATERAL (
            SELECT stored.topic_id FROM tickwell.feature_rows AS stored
            WHERE stored.entity = known.entity AND stored.schema_id = schema.id
            LIMIT 1
        ) AS row
        LIMIT 1
    ) AS other ON true
    WHERE known.source = %(source)s AND known.entity = ANY (%(entities)s::text[])
        AND known.topic_id = %(load)s::uuid
), moved AS (
    UPDATE tickwell.entities AS home SET topic_id = homeless.topic_id
    FROM homeless
    WHERE home.source = %(source)s AND home.entity = homeless.entity
        AND home.topic_id = %(load)s::uuid AND homeless.topic_id IS NOT NULL
)
DELETE FROM tickwell.entities AS home
USING homeless
WHERE home.source = %(source)s AND home.entity = homeless.entity
    AND home.topic_id = %(load)s::uuid AND homeless.topic_id IS NULL
