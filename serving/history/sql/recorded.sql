-- When a version was recorded, and by whom.
SELECT created_at, created_by FROM tickwell.feature_versions
WHERE name = %(name)s AND version = %(version)s
