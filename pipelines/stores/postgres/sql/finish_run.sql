UPDATE tickwell.watermarks
SET next_offset = %(following)s, known_at = greatest(known_at, %(known_at)s)
WHERE topic_id = %(topic_id)s::uuid AND partition = %(partition)s
