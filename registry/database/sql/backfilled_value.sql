-- The value of the active version of a feature that a row's tick has in a block; NULL where it has none.
-- The last block that begins at the tick or before it has it, or no block has. Of ticks at one time the
-- first one of the block is found by its step, and the others follow it. Those of loaded ticks are under the
-- negative of the backfill's id.
SELECT CASE
    WHEN coalesce(block.steps[found.number], block.long_steps[found.number]) = found.step
    THEN block.values[found.number]
END AS value
FROM (
    SELECT * FROM tickwell.backfilled_blocks AS stored
    WHERE stored.backfill = CASE WHEN tickwell.feature_rows.schema_id < 0 THEN -1 ELSE 1 END * (
            SELECT backfill FROM tickwell.active_columns
            WHERE source = :source AND name = :name
        )
        AND stored.entity = tickwell.feature_rows.entity
        AND (stored.first_event_time, stored.first_sequence)
            <= (tickwell.feature_rows.event_time, tickwell.feature_rows.sequence)
    ORDER BY stored.first_event_time DESC, stored.first_sequence DESC LIMIT 1
) AS block
CROSS JOIN LATERAL (
    SELECT (tickwell.feature_rows.event_time - block.first_event_time) / block.unit AS step
) AS of_tick
CROSS JOIN LATERAL (
    SELECT of_tick.step,
        CASE
            WHEN block.steps IS NULL THEN array_position(block.long_steps, of_tick.step)
            ELSE array_position(block.steps, CAST(of_tick.step AS integer))
        END + CAST(
            tickwell.feature_rows.sequence
                - CASE of_tick.step WHEN 0 THEN block.first_sequence ELSE 0 END
            AS integer
        ) AS number
    WHERE tickwell.feature_rows.event_time <= block.last_event_time
        AND block.first_event_time + of_tick.step * block.unit = tickwell.feature_rows.event_time
) AS found
WHERE tickwell.feature_rows.revision = 0
