-- The backfills whose values are read, and whether they are of all ticks that a row says to lack the version.
SELECT id, name || '@' || version, ticks_from = 'postgres' FROM tickwell.backfills
WHERE state = 'complete'
