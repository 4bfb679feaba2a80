-- The first offset of each partition that live has stored in a row schema: from there on, up to where
-- the next row schema of the source begins, every tick that was accepted has a row in it. A partition
-- without a row has no run in it yet.
CREATE TABLE tickwell.schema_starts (
    schema_id integer NOT NULL,
    topic_id uuid NOT NULL,
    partition integer NOT NULL,
    from_offset bigint NOT NULL,
    PRIMARY KEY (topic_id, partition, schema_id)
);

-- Does what `check_schema` does, and records where a row schema begins in a partition. A step of
-- storing a run, in its transaction: the caller holds the partition, and moves its watermark on from
-- `base`, whether a tick of the run is accepted or not.
CREATE FUNCTION tickwell.begin_schema(
    the_source text, the_schema integer, the_topic uuid, the_partition integer, base bigint
)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM tickwell.check_schema(the_source, the_schema);
    IF NOT EXISTS (
        SELECT FROM tickwell.schema_starts
        WHERE topic_id = the_topic AND partition = the_partition AND schema_id = the_schema
    ) THEN
        INSERT INTO tickwell.schema_starts VALUES (the_schema, the_topic, the_partition, base);
    END IF;
END
$$;

-- What is stored already. The first row schema of a source has everything before the second one begins:
-- what came before the first offset that was read is in no store.
INSERT INTO tickwell.schema_starts (schema_id, topic_id, partition, from_offset)
SELECT first.id, stored.topic_id, stored.partition, 0
FROM tickwell.watermarks AS stored
JOIN tickwell.sources AS source ON source.definition ->> 'topic' = stored.topic
JOIN (SELECT source, min(id) AS id FROM tickwell.row_schemas GROUP BY source) AS first
    ON first.source = source.name;

-- A later one begins no earlier than behind the last offset that has a row in an earlier one. It does
-- not where its own first row is: a replay may have stored earlier ticks in it, of some entities only.
-- The newest row of an entity has the last offset, and the primary key leads to it; of the current
-- incarnation of a topic, which comes last. Sources with one row schema are not looked at.
WITH newest AS MATERIALIZED (
    SELECT schema.source, schema.id AS schema_id, row.topic_id, row.partition, row."offset"
    FROM tickwell.row_schemas AS schema
    JOIN tickwell.entities AS known ON known.source = schema.source
    CROSS JOIN LATERAL (
        SELECT stored.topic_id, stored.partition, stored."offset"
        FROM tickwell.feature_rows AS stored
        WHERE stored.entity = known.entity AND stored.schema_id = schema.id
            AND stored.revision = 0
        ORDER BY stored.event_time DESC, stored.sequence DESC LIMIT 1
    ) AS row
    WHERE schema.source IN (
        SELECT source FROM tickwell.row_schemas GROUP BY source HAVING count(*) > 1
    )
), last AS (
    SELECT newest.source, newest.schema_id, newest.topic_id, newest.partition,
        max(newest."offset") AS "offset"
    FROM newest
    JOIN tickwell.topics AS known ON known.topic_id = newest.topic_id
    WHERE NOT EXISTS (
        SELECT FROM tickwell.topics AS newer
        WHERE newer.topic = known.topic AND newer.incarnation > known.incarnation
    )
    GROUP BY newest.source, newest.schema_id, newest.topic_id, newest.partition
)
INSERT INTO tickwell.schema_starts (schema_id, topic_id, partition, from_offset)
SELECT later.schema_id, later.topic_id, later.partition,
    coalesce(max(earlier."offset") + 1, 0)
FROM last AS later
JOIN tickwell.watermarks AS stored
    ON stored.topic_id = later.topic_id AND stored.partition = later.partition
LEFT JOIN last AS earlier
    ON earlier.source = later.source AND earlier.topic_id = later.topic_id
    AND earlier.partition = later.partition AND earlier.schema_id < later.schema_id
GROUP BY later.schema_id, later.topic_id, later.partition
ON CONFLICT DO NOTHING;
