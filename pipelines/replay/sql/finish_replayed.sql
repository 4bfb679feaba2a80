SELECT tickwell.change_days(
    %(source)s, 'replay', %(topic_id)s::uuid, %(partition)s, %(days)s::integer[]
);
UPDATE tickwell.replays
SET next_offset = %(following)s, stored_to = greatest(stored_to, %(following)s)
WHERE replay = %(replay)s AND topic_id = %(topic_id)s::uuid AND partition = %(partition)s
