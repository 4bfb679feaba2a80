-- The partitions of months.
SELECT child.relname
FROM pg_catalog.pg_inherits AS of
JOIN pg_catalog.pg_class AS child ON child.oid = of.inhrelid
WHERE of.inhparent = 'tickwell.feature_rows'::regclass
    AND child.relname ~ '^feature_rows_\d\d\d\d_\d\d$'
ORDER BY child.relname
