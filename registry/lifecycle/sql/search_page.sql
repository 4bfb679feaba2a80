-- The features that are found, the best first, from `after` on; that one is in the answer, too.
WITH found AS MATERIALIZED (
    SELECT
        name,
        description,
        CASE
            WHEN name = ANY(%(names)s::text[]) THEN 0
            WHEN aliases && %(names)s::text[] THEN 1
            WHEN name ^@ %(begin)s THEN 2
            WHEN document @@ %(whole)s::tsquery THEN 3
            ELSE 4
        END AS match,
        - ts_rank(document, %(query)s::tsquery) AS rank
    FROM tickwell.search_documents
    WHERE document @@ %(query)s::tsquery
)
SELECT name, description, match
FROM found
WHERE %(after)s::text IS NULL OR (match, rank, name) >= (
    SELECT last.match, last.rank, last.name FROM found AS last WHERE last.name = %(after)s
)
ORDER BY match, rank, name
LIMIT %(most)s
