-- One row a feature. Words are split and their case is folded before (`registry.lifecycle.search`):
-- Postgres' parser takes `trades/price_sma_5` for a file and `-5` for a number below 0.
CREATE TABLE tickwell.search_documents (
    name text COLLATE "C" PRIMARY KEY,
    aliases text[] NOT NULL,
    description text NOT NULL,
    document tsvector NOT NULL,
    digest bytea NOT NULL
);

-- Without a list of pending entries, which every search would have to read.
CREATE INDEX search_documents_words ON tickwell.search_documents
    USING gin (document) WITH (fastupdate = off);

-- Every word of a document, once: what a word with a typing error may have been meant to be.
CREATE TABLE tickwell.search_words (
    word text COLLATE "C" PRIMARY KEY
);

-- A managed Postgres may not have it, or not for us: then no typing error is forgiven.
DO $$
BEGIN
    CREATE EXTENSION IF NOT EXISTS pg_trgm SCHEMA tickwell;
EXCEPTION WHEN OTHERS THEN
    RAISE NOTICE 'pg_trgm: %', SQLERRM;
END
$$;

-- The words that are most like one, the most similar first; NULL where Postgres cannot tell.
CREATE FUNCTION tickwell.similar_words(asked text) RETURNS text[]
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
    -- The extension may have been there before, in another schema.
    home name := (SELECT extnamespace::regnamespace::name FROM pg_catalog.pg_extension
        WHERE extname = 'pg_trgm' AND has_schema_privilege(extnamespace, 'USAGE'));
    found text[];
BEGIN
    IF home IS NULL THEN
        RETURN NULL;
    END IF;
    EXECUTE format(
        'SELECT ARRAY(
            SELECT word FROM tickwell.search_words, LATERAL %I.similarity(word, $1) AS likeness
            WHERE length(word) BETWEEN length($1) - 2 AND length($1) + 2 AND likeness >= 0.1
            ORDER BY likeness DESC, word LIMIT 20
        )', home
    ) INTO found USING asked;
    RETURN found;
END
$$;
