-- One transaction of the server: a client that is stopped in the middle holds no lock. Rows are
-- locked in one order by all processes.
SET LOCAL statement_timeout = %(milliseconds)s;
WITH is_new AS (
    INSERT INTO tickwell.usage_batches AS known (process, number, stored_at)
    VALUES (%(process)s::uuid, %(number)s, now())
    ON CONFLICT (process) DO UPDATE SET number = excluded.number, stored_at = excluded.stored_at
        WHERE known.number < excluded.number
    RETURNING number
)
INSERT INTO tickwell.usage AS known (name, version, consumer, day, reads, last_read)
SELECT counted.*
FROM is_new, unnest(
    %(names)s::text[], %(versions)s::text[], %(consumers)s::text[], %(days)s::date[],
    %(reads)s::bigint[], %(last_reads)s::timestamptz[]
) AS counted (name, version, consumer, day, reads, last_read)
ORDER BY name, version, consumer, day
ON CONFLICT (name, version, consumer, day) DO UPDATE SET
    reads = known.reads + excluded.reads,
    last_read = greatest(known.last_read, excluded.last_read)
