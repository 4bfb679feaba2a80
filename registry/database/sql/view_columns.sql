-- The relation that has a view's name: its kind ('v' for a view), its options, its columns in order.
SELECT
    relation.relkind::text AS kind,
    relation.reloptions AS options,
    ARRAY(
        SELECT attname::text FROM pg_catalog.pg_attribute
        WHERE attrelid = relation.oid AND attnum > 0 AND NOT attisdropped
        ORDER BY attnum
    ) AS columns
FROM pg_catalog.pg_class AS relation
WHERE relation.oid = to_regclass(:view)
