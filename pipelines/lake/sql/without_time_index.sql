-- The partitions of the rows that have no index of event times which is whole.
SELECT child.relname
FROM pg_catalog.pg_inherits AS of
JOIN pg_catalog.pg_class AS child ON child.oid = of.inhrelid
WHERE of.inhparent = 'tickwell.feature_rows'::regclass
    AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_index AS known
        JOIN pg_catalog.pg_class AS index ON index.oid = known.indexrelid
        WHERE known.indrelid = child.oid AND known.indisvalid
            AND index.relname = child.relname || '_times'
    )
ORDER BY child.relname
