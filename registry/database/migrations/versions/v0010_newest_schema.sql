-- One row, of which the number moves with every change of the catalog.
CREATE TABLE tickwell.serial (
    id boolean PRIMARY KEY DEFAULT true CHECK (id),
    number bigint NOT NULL,
    moved_at timestamptz NOT NULL DEFAULT now()
);

INSERT INTO tickwell.serial (number) VALUES (0);

-- Raises TW005 when rows of a source are to be written in a newer row schema than the caller's. A
-- worker that has not seen a change of the registry yet would else write ticks without a feature
-- after ticks with it.
CREATE FUNCTION tickwell.check_schema(the_source text, the_schema integer)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT FROM tickwell.row_schemas WHERE source = the_source AND id > the_schema
    ) THEN
        RAISE EXCEPTION 'a newer row schema is recorded'
            USING ERRCODE = 'TW005', DETAIL = json_build_array(the_source, the_schema)::text;
    END IF;
END
$$;
