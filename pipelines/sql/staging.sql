-- A table of the session's own: copying into it takes no lock that anyone else waits for.
CREATE TEMPORARY TABLE IF NOT EXISTS staging_rows (
    name integer NOT NULL,
    event_time bigint NOT NULL,
    sequence bigint NOT NULL,
    tick_time bigint NOT NULL,
    seq bigint NOT NULL,
    op smallint NOT NULL,
    fields double precision[] NOT NULL,
    features double precision[] NOT NULL,
    status bytea NOT NULL,
    known_at bigint NOT NULL,
    "offset" bigint NOT NULL,
    index integer NOT NULL
) ON COMMIT PRESERVE ROWS;
