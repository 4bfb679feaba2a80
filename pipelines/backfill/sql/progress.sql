SELECT entity, event_time, sequence FROM tickwell.backfills
WHERE id = %(backfill)s AND state = 'running'
