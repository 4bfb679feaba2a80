-- Where rows have the active version of a feature: its index in `features`, by row schema id; 0 where
-- a row schema does not have it. No index is NULL: a null bitmap would have to be walked for each value.
CREATE TABLE tickwell.active_columns (
    source text NOT NULL,
    name text NOT NULL,
    indexes integer[] NOT NULL,
    PRIMARY KEY (source, name)
);

-- Somebody may have made a view `security_invoker`: then whoever reads it reads these, too.
GRANT SELECT ON tickwell.active_columns TO PUBLIC;
GRANT SELECT (id, source) ON tickwell.row_schemas TO PUBLIC;

-- Three functions are replaced when a row schema is recorded (`registry.database.active_columns`).
-- They are STABLE, so that the planner neither runs nor calls them, but puts their expression in
-- their place, and plans that have it end with it: then it knows the ids of a source's row schemas as
-- if they stood in the view, and replacing a function waits for no reader, as replacing a view does.

-- Whether rows of a source are in a row schema.
CREATE FUNCTION tickwell.is_row_schema(source text, schema_id integer) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE AS 'SELECT false';

-- The same, but for the source's first row schema, which has nothing to take the place of.
CREATE FUNCTION tickwell.is_later_row_schema(source text, schema_id integer) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE AS 'SELECT false';

-- The newest row schema that the other two know of a source.
CREATE FUNCTION tickwell.newest_row_schema(source text) RETURNS integer
LANGUAGE sql STABLE PARALLEL SAFE AS 'SELECT 0';

-- Raises where a statement was planned before a row schema was recorded that it sees. Only a prepared
-- one may be, in a transaction that has been open for so long: it would leave out the newest rows.
CREATE FUNCTION tickwell.refuse_old_plan(source text) RETURNS boolean
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
BEGIN
    RAISE EXCEPTION 'a row schema of % was recorded after this statement was prepared', source
        USING ERRCODE = 'serialization_failure', HINT = 'End the transaction, then ask again.';
END
$$;

GRANT EXECUTE ON FUNCTION
    tickwell.is_row_schema, tickwell.is_later_row_schema, tickwell.newest_row_schema,
    tickwell.refuse_old_plan
TO PUBLIC;
