-- The consumers that have read versions since a time, of each version those with the most reads, and of
-- how many they are the first.
SELECT name, version, consumer, reads, last_read, consumers
FROM (
    SELECT
        name, version, consumer, sum(reads) AS reads, max(last_read) AS last_read,
        count(*) OVER (PARTITION BY name, version) AS consumers,
        row_number() OVER (
            PARTITION BY name, version ORDER BY sum(reads) DESC, consumer
        ) AS number
    FROM tickwell.usage
    JOIN unnest(CAST(:names AS text[]), CAST(:versions AS text[])) AS wanted (name, version)
        USING (name, version)
    WHERE last_read >= :since
    GROUP BY name, version, consumer
) AS ranked
WHERE number <= :most
ORDER BY name, version, number
