-- Moves the progress of a backfill that runs and is where this process left it.
UPDATE tickwell.backfills SET
    entity = %(entity)s, event_time = %(event_time)s, sequence = %(sequence)s,
    of_loads = %(of_loads)s,
    entities = entities + %(entities)s, ticks = ticks + %(ticks)s
WHERE id = %(backfill)s AND state = 'running' AND ticks_from = 'postgres'
    AND of_loads = %(from_loads)s
    AND (entity, event_time, sequence)
        IS NOT DISTINCT FROM (%(from_entity)s, %(from_time)s::bigint, %(from_sequence)s::bigint)
