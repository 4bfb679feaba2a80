-- A table of the transaction's own: copying into it takes no lock that another session waits for.
CREATE TEMPORARY TABLE staging_rows (LIKE tickwell.feature_rows) ON COMMIT DROP;
