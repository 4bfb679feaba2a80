SELECT tickwell.change_days(
    %(source)s, 'live', %(topic_id)s::uuid, %(partition)s, %(days)s::integer[]
);
UPDATE tickwell.watermarks
SET next_offset = %(following)s, known_at = greatest(known_at, %(known_at)s)
WHERE topic_id = %(topic_id)s::uuid AND partition = %(partition)s
