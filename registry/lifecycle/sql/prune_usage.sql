SET LOCAL statement_timeout = %(milliseconds)s;
DELETE FROM tickwell.usage_batches WHERE stored_at < %(before)s;
DELETE FROM tickwell.usage WHERE ctid = ANY (ARRAY (
    SELECT ctid FROM tickwell.usage WHERE day < %(before)s LIMIT %(most)s FOR UPDATE SKIP LOCKED
))
