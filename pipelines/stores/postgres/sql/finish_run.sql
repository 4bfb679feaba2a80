UPDATE tickwell.watermarks SET next_offset = %(following)s
WHERE topic_id = %(topic_id)s::uuid AND partition = %(partition)s
