-- A row is never deleted and only ever revoked: the number of rows and of revoked ones says which of
-- two readings is the newer.
CREATE TABLE tickwell.api_keys (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    sha256 bytea NOT NULL UNIQUE CHECK (octet_length(sha256) = 32),
    scopes text[] NOT NULL CHECK (cardinality(scopes) > 0),
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by text NOT NULL,
    expires_at timestamptz,
    revoked_at timestamptz,
    revoked_by text
);

-- The name of a revoked key may be given again.
CREATE UNIQUE INDEX api_keys_name ON tickwell.api_keys (name) WHERE revoked_at IS NULL;
