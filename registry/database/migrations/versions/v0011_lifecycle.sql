-- What a version is (`registry.language.canonical`; empty for one that an earlier build recorded,
-- until the next recording), and whether it was given up.
ALTER TABLE tickwell.feature_versions
    ADD COLUMN digest bytea,
    ADD COLUMN identity jsonb,
    ADD COLUMN note text NOT NULL DEFAULT '',
    ADD COLUMN deprecated_at timestamptz,
    ADD COLUMN retired_at timestamptz,
    ADD COLUMN replacement text,
    ADD CHECK (retired_at IS NULL OR deprecated_at IS NOT NULL);

-- Each move of a feature's name from one version to another one, in their order.
CREATE TABLE tickwell.activations (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    version text NOT NULL,
    previous text,
    action text NOT NULL CHECK (action IN ('activate', 'roll back')),
    at timestamptz NOT NULL DEFAULT now(),
    actor text NOT NULL,
    note text NOT NULL DEFAULT ''
);

CREATE INDEX activations_of_name ON tickwell.activations (name, id);

INSERT INTO tickwell.activations (name, version, previous, action, at, actor)
SELECT subject, detail ->> 'version',
    lag(detail ->> 'version') OVER (PARTITION BY subject ORDER BY id), 'activate', at, actor
FROM tickwell.audit WHERE action = 'activate' ORDER BY id;

INSERT INTO tickwell.activations (name, version, action, actor)
SELECT name, version, 'activate', 'the database migration' FROM tickwell.active_versions AS active
WHERE NOT EXISTS (SELECT FROM tickwell.activations AS known WHERE known.name = active.name);

-- Sets of pinned versions, and the models that read them.
CREATE TABLE tickwell.feature_sets (
    name text,
    version text,
    definition jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by text NOT NULL,
    deprecated_at timestamptz,
    retired_at timestamptz,
    replacement text,
    PRIMARY KEY (name, version),
    CHECK (retired_at IS NULL OR deprecated_at IS NOT NULL)
);

CREATE TABLE tickwell.set_models (
    name text,
    version text,
    model text,
    since timestamptz NOT NULL DEFAULT now(),
    recorded_by text NOT NULL,
    PRIMARY KEY (name, version, model),
    FOREIGN KEY (name, version) REFERENCES tickwell.feature_sets (name, version)
);

-- What a subject was before a change, and which request made it.
ALTER TABLE tickwell.audit RENAME COLUMN detail TO after;
ALTER TABLE tickwell.audit
    ALTER COLUMN after DROP NOT NULL,
    ADD COLUMN before jsonb,
    ADD COLUMN request_id text,
    ADD COLUMN note text NOT NULL DEFAULT '';

CREATE INDEX audit_of_subject ON tickwell.audit (subject, id);
