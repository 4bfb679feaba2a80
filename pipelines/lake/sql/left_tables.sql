-- Tables that were prepared, and never took a place: a process was killed.
SELECT relname FROM pg_catalog.pg_class
WHERE relnamespace = 'tickwell'::regnamespace AND relkind = 'r' AND NOT relispartition
    AND relname ~ '^feature_rows_\d\d\d\d_\d\d_kept$'
