-- The body of a function, given with the types of its parameters, as it was created.
SELECT prosrc FROM pg_catalog.pg_proc WHERE oid = to_regprocedure(:function)
