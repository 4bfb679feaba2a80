-- Who is in the way of others is fenced, wherever its lock is; and nobody of an earlier incarnation of
-- a topic changes where entities are at home.

-- Raises TW003 when the topic was made anew since.
CREATE FUNCTION tickwell.check_incarnation(the_topic uuid)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    the_name text;
BEGIN
    SELECT newer.topic INTO the_name
    FROM tickwell.topics AS known
    JOIN tickwell.topics AS newer
        ON newer.topic = known.topic AND newer.incarnation > known.incarnation
    WHERE known.topic_id = the_topic LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'the topic was made anew' USING ERRCODE = 'TW003', DETAIL = the_name;
    END IF;
END
$$;

-- Takes the lock of a partition until the transaction ends. Raises lock_not_available after
-- `patience` milliseconds, and TW003 when the topic was made anew since.
CREATE OR REPLACE FUNCTION tickwell.lock_partition(
    the_topic uuid, the_partition integer, patience integer
)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    usual text := current_setting('lock_timeout');
BEGIN
    PERFORM set_config('lock_timeout', patience::text, true);
    PERFORM pg_advisory_xact_lock(tickwell.partition_lock(the_topic, the_partition));
    PERFORM set_config('lock_timeout', usual, true);
    PERFORM tickwell.check_incarnation(the_topic);
END
$$;

-- Ends the sessions that hold any partition of an earlier incarnation of the topic; and, unless the
-- partition is NULL, those that hold it, or have held another one for longer than a copy can take:
-- what they hold of entities and rows may be what is waited for. Returns how many.
CREATE OR REPLACE FUNCTION tickwell.fence_partition(the_topic uuid, the_partition integer)
RETURNS bigint LANGUAGE sql AS $$
    SELECT count(pg_terminate_backend(holder.pid))
    FROM (
        SELECT DISTINCT lock.pid
        FROM tickwell.topics AS current
        JOIN tickwell.topics AS known
            ON known.topic = current.topic AND known.incarnation <= current.incarnation
        CROSS JOIN LATERAL generate_series(0, known.partitions - 1) AS partition (number)
        JOIN pg_locks AS lock
            ON (lock.classid::bigint << 32 | lock.objid::bigint)
                = tickwell.partition_lock(known.topic_id, partition.number)
        JOIN pg_stat_activity AS session ON session.pid = lock.pid
        WHERE current.topic_id = the_topic
            AND (
                known.topic_id <> the_topic OR partition.number = the_partition
                OR (
                    the_partition IS NOT NULL
                    AND session.xact_start < clock_timestamp() - interval '5 seconds'
                )
            )
            AND lock.locktype = 'advisory' AND lock.objsubid = 1 AND lock.granted
            AND lock.database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND lock.pid <> pg_backend_pid()
    ) AS holder
$$;

-- Makes a partition the home of entities that have none, or have it in an earlier incarnation.
-- Returns those that have their home in another partition; the caller must not commit then. Raises
-- TW003 when the topic was made anew since: this is looked at last, so that whoever has settled an
-- entity before, in a newer one, is seen.
CREATE OR REPLACE FUNCTION tickwell.settle_entities(
    the_source text, the_topic uuid, the_partition integer, unsettled text[]
)
RETURNS text[] LANGUAGE plpgsql AS $$
BEGIN
    -- In order, so that two workers that settle the same entities cannot deadlock.
    INSERT INTO tickwell.entities AS known (source, entity, topic_id, partition)
    SELECT the_source, entity, the_topic, the_partition
    FROM unnest(unsettled) AS entity ORDER BY entity
    ON CONFLICT (source, entity) DO UPDATE
        SET topic_id = excluded.topic_id, partition = excluded.partition
        WHERE known.topic_id <> excluded.topic_id;
    PERFORM tickwell.check_incarnation(the_topic);
    RETURN ARRAY(
        SELECT entity FROM tickwell.entities
        WHERE source = the_source AND entity = ANY (unsettled)
            AND topic_id = the_topic AND partition <> the_partition
    );
END
$$;
