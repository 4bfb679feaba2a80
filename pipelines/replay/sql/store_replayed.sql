-- Stores what is staged, and commits: one message, so that no client can stop between the two with rows
-- locked. Only the last statement answers: with what the first has done, as JSON. Where all rows were
-- there, no day is changed.
SELECT
    set_config('tickwell.stored', to_json(stored)::text, false),
    CASE WHEN stored.inserted > 0 THEN
        tickwell.change_days(
            %(source)s, 'replay', %(topic_id)s::uuid, %(partition)s, %(days)s::integer[]
        )
    END
FROM (
    SELECT progress, conflicts, inserted FROM tickwell.store_replayed(
        %(replay)s, %(source)s, %(topic_id)s::uuid, %(topic)s, %(partition)s,
        %(base)s, %(following)s, %(unsettled)s::text[],
        %(rejected_offset)s::bigint[], %(rejected_index)s::integer[],
        %(rejected_reason)s::text[], %(rejected_detail)s::text[],
        %(rejected_key)s::bytea[], %(rejected_value)s::bytea[], %(rejected_known_at)s::bigint[]
    )
) AS stored;
COMMIT;
SELECT current_setting('tickwell.stored')
