-- A round has come so far.
UPDATE tickwell.verified_to SET entity = %(entity)s WHERE source = %(source)s
