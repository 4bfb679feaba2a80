SELECT
    version,
    consumer,
    max(last_read) AS last_read,
    array_agg(day) FILTER (WHERE day BETWEEN :first AND :last) AS days,
    array_agg(reads) FILTER (WHERE day BETWEEN :first AND :last) AS reads
FROM tickwell.usage
WHERE name = :name
GROUP BY version, consumer
ORDER BY sum(reads) FILTER (WHERE day BETWEEN :first AND :last) DESC NULLS LAST, version, consumer
LIMIT :most
