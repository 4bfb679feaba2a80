-- The value of the active version of a feature in a row, whose row schema says where it stands; a loaded row
-- has the negative of its id.
-- What is asked for once is looked up once, before all rows. A value that is kept compressed would be
-- unpacked for each row; one that was computed is not.
tickwell.feature_rows.features[
    (
        SELECT indexes || '{}'::integer[] FROM tickwell.active_columns
        WHERE source = :source AND name = :name
    )[abs(tickwell.feature_rows.schema_id)]
]
