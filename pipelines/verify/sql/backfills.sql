-- The backfills whose values are read.
SELECT id, name || '@' || version FROM tickwell.backfills WHERE state = 'complete'
