-- Ends the sessions that hold any partition of an earlier incarnation of the topic; and, unless the
-- partition is NULL, those that hold it, or have held another one for longer than a copy can take:
-- what they hold of entities and rows may be what is waited for. Returns how many.
--
-- A session that records definitions (it holds the lock 7242019003) is waited for: it takes all
-- partitions of a topic for other rules of its source, and its transaction has a limit of its own.
-- A topic that live never read is known by its replays only, and is not in `topics`.
CREATE OR REPLACE FUNCTION tickwell.fence_partition(the_topic uuid, the_partition integer)
RETURNS bigint LANGUAGE sql AS $$
    SELECT count(pg_terminate_backend(holder.pid))
    FROM (
        SELECT DISTINCT lock.pid
        FROM (
            SELECT known.topic_id, number AS partition
            FROM tickwell.topics AS current
            JOIN tickwell.topics AS known
                ON known.topic = current.topic AND known.incarnation <= current.incarnation
            CROSS JOIN LATERAL generate_series(0, known.partitions - 1) AS number
            WHERE current.topic_id = the_topic
            UNION
            SELECT the_topic, the_partition
        ) AS held
        JOIN pg_locks AS lock
            ON (lock.classid::bigint << 32 | lock.objid::bigint)
                = tickwell.partition_lock(held.topic_id, held.partition)
        JOIN pg_stat_activity AS session ON session.pid = lock.pid
        WHERE (
                held.topic_id <> the_topic OR held.partition = the_partition
                OR (
                    the_partition IS NOT NULL
                    AND session.xact_start < clock_timestamp() - interval '5 seconds'
                )
            )
            AND lock.locktype = 'advisory' AND lock.objsubid = 1 AND lock.granted
            AND lock.database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND lock.pid <> pg_backend_pid()
            AND NOT EXISTS (
                SELECT FROM pg_locks AS recording
                WHERE recording.pid = lock.pid AND recording.granted
                    AND recording.locktype = 'advisory' AND recording.objsubid = 1
                    AND (recording.classid::bigint << 32 | recording.objid::bigint) = 7242019003
            )
    ) AS holder
$$;
