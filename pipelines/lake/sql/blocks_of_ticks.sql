-- The blocks of a backfill that have ticks of entities between two event times, in the order of ticks.
-- A block that begins before the first time may end after it; of those only the last ones can.
SELECT
    asked.number, block.first_event_time, block.first_sequence, block.unit,
    array_send(coalesce(block.steps::bigint[], block.long_steps)), array_send(block.values),
    block.statuses
FROM unnest(%(entities)s::text[], %(firsts)s::bigint[], %(lasts)s::bigint[])
    WITH ORDINALITY AS asked (entity, first, last, number)
CROSS JOIN LATERAL (
    SELECT * FROM tickwell.backfilled_blocks AS stored
    WHERE stored.backfill = %(backfill)s AND stored.entity = asked.entity
        AND stored.first_event_time <= asked.last
        AND stored.first_event_time >= coalesce(
            (
                SELECT max(earlier.first_event_time) FROM tickwell.backfilled_blocks AS earlier
                WHERE earlier.backfill = %(backfill)s AND earlier.entity = asked.entity
                    AND earlier.first_event_time < asked.first
            ),
            asked.first
        )
    ORDER BY stored.first_event_time, stored.first_sequence
) AS block
ORDER BY asked.number, block.first_event_time, block.first_sequence
