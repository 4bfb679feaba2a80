-- The blocks of backfills that have ticks of entities from a time on and before another one. One that was
-- begun anew has none that is read.
SELECT
    wanted.number, block.backfill, block.first_event_time, block.first_sequence, block.unit,
    array_send(coalesce(block.long_steps, block.steps::bigint[])), array_send(block.values),
    block.statuses
FROM unnest(%(entities)s::text[], %(after_times)s::bigint[], %(past_times)s::bigint[])
    WITH ORDINALITY AS wanted (entity, after_time, past_time, number)
JOIN tickwell.backfilled_blocks AS block
    ON block.backfill = ANY (%(backfills)s::integer[]) AND block.entity = wanted.entity
        AND block.last_event_time >= wanted.after_time
        AND block.first_event_time < wanted.past_time
JOIN tickwell.backfills AS made ON made.id = block.backfill AND made.state = 'complete'
ORDER BY wanted.number, block.backfill, block.first_event_time, block.first_sequence
