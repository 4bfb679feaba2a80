-- What keeps a month from being let go, one sentence each: its rows are being read or added to.
SELECT 'the backfill of ' || backfill.name || '@' || backfill.version
    || ' is not complete: go on with it, or cancel it'
FROM tickwell.backfills AS backfill
JOIN tickwell.feature_versions AS feature USING (name, version)
WHERE backfill.state = 'running' AND feature.definition ->> 'source' = ANY (%(sources)s::text[])
UNION ALL
SELECT 'a load of ' || load.source || ' is not finished: run its command again'
FROM tickwell.loads AS load
WHERE load.finished_at IS NULL AND load.source = ANY (%(sources)s::text[])
    AND load.first_time < %(high)s
UNION ALL
SELECT 'a repair of ' || repair.source || ' is not finished: `tickwell repair` goes on with it'
FROM tickwell.repairs AS repair
WHERE repair.finished_at IS NULL AND repair.source = ANY (%(sources)s::text[])
