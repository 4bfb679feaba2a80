-- The values that a backfill has of ticks, numbered from 0, with their statuses (0 is `ok`). The block
-- that begins at a tick, or is the last one to begin before it, has it, or none has. Of ticks at one time
-- the first one of the block is found by its step, and the others follow it.
SELECT
    asked.number, block.values[found.number],
    coalesce(get_byte(block.statuses, found.number - 1), 0)::smallint
FROM unnest(
    %(numbers)s::integer[], %(backfills)s::integer[], %(entities)s::text[],
    %(event_times)s::bigint[], %(sequences)s::bigint[]
) AS asked (number, backfill, entity, event_time, sequence)
CROSS JOIN LATERAL (
    SELECT * FROM tickwell.backfilled_blocks AS stored
    WHERE stored.backfill = asked.backfill AND stored.entity = asked.entity
        AND (stored.first_event_time, stored.first_sequence)
            <= (asked.event_time, asked.sequence)
    ORDER BY stored.first_event_time DESC, stored.first_sequence DESC
    LIMIT 1
) AS block
CROSS JOIN LATERAL (
    SELECT (asked.event_time - block.first_event_time) / block.unit AS step
) AS of_tick
CROSS JOIN LATERAL (
    SELECT
        CASE
            WHEN block.steps IS NULL THEN array_position(block.long_steps, of_tick.step)
            ELSE array_position(block.steps, of_tick.step::integer)
        END + (
            asked.sequence - CASE of_tick.step WHEN 0 THEN block.first_sequence ELSE 0 END
        )::integer AS number
    WHERE asked.event_time <= block.last_event_time
        AND block.first_event_time + of_tick.step * block.unit = asked.event_time
) AS found
WHERE coalesce(block.steps[found.number], block.long_steps[found.number]) = of_tick.step
