-- A table of the session's own: copying into it takes no lock that another session waits for.
CREATE TEMPORARY TABLE IF NOT EXISTS staging_rows (LIKE tickwell.feature_rows)
    ON COMMIT PRESERVE ROWS;
