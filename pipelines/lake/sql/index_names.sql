-- The indexes of a table that have names of their own: that of its primary key, and that of its times.
SELECT index.relname,
    CASE WHEN known.indisprimary THEN 'pkey' ELSE 'times' END
FROM pg_catalog.pg_index AS known
JOIN pg_catalog.pg_class AS index ON index.oid = known.indexrelid
WHERE known.indrelid = to_regclass(%(table)s)
    AND (known.indisprimary OR pg_get_indexdef(index.oid) LIKE '%% USING brin (event_time)%%')
