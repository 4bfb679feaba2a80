-- Whether a replay has stored ticks of a topic beyond what live had stored when a backfill began.
SELECT EXISTS (
    SELECT FROM tickwell.replays AS replay
    LEFT JOIN unnest(%(topics)s::uuid[], %(partitions)s::integer[], %(ends)s::bigint[])
        AS stored (topic_id, partition, "end") USING (topic_id, partition)
    WHERE replay.stored_to > coalesce(stored."end", 0)
)
