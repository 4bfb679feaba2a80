-- Everything that decides how a message becomes ticks is in a source's definition. It may change: each
-- definition that it has had is kept, the newest one also in `sources`.
CREATE TABLE tickwell.source_rules (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source text NOT NULL REFERENCES tickwell.sources (name),
    definition jsonb NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    recorded_by text NOT NULL
);

-- The first offset of each partition that changed rules decide. The first rules of a source have no
-- row; neither has a topic that was made anew since, of which the newest rules decide everything.
CREATE TABLE tickwell.rules_starts (
    rules_id integer NOT NULL REFERENCES tickwell.source_rules (id),
    topic_id uuid NOT NULL,
    partition integer NOT NULL,
    from_offset bigint NOT NULL,
    PRIMARY KEY (rules_id, topic_id, partition)
);

CREATE INDEX rules_starts_of_partition ON tickwell.rules_starts (topic_id, partition, rules_id);

INSERT INTO tickwell.source_rules (source, definition, recorded_by)
SELECT name, definition, 'the database migration' FROM tickwell.sources ORDER BY name;

-- Raises TW004 when offsets before `following` of a partition are decided by newer rules than those
-- by which the caller has decided them.
CREATE FUNCTION tickwell.check_rules(
    the_source text, the_topic uuid, the_partition integer, following bigint, the_rules integer
)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT FROM tickwell.rules_starts
        WHERE topic_id = the_topic AND partition = the_partition
            AND rules_id > the_rules AND from_offset < following
    ) THEN
        RAISE EXCEPTION 'other rules hold' USING ERRCODE = 'TW004', DETAIL = the_source;
    END IF;
END
$$;
