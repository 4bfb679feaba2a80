-- The loads of a source that nobody has given up.
SELECT id::text FROM tickwell.loads WHERE source = %(source)s AND forgotten_at IS NULL
