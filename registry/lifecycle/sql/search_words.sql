-- Of each word that is asked for whether a word begins with it, and where none does, those that are
-- most like it; in the last column whether Postgres can tell.
SELECT
    asked.word,
    known.is_known,
    CASE WHEN NOT known.is_known THEN tickwell.similar_words(asked.word) END AS similar,
    EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'pg_trgm') AS forgives
FROM
    unnest(%(words)s::text[]) AS asked (word),
    LATERAL (
        SELECT EXISTS (SELECT FROM tickwell.search_words WHERE word ^@ asked.word) AS is_known
    ) AS known
