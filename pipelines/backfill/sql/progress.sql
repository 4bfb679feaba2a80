SELECT entity, event_time, sequence, of_loads FROM tickwell.backfills
WHERE id = %(backfill)s AND state = 'running'
