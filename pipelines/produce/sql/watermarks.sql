SELECT partition, next_offset FROM tickwell.watermarks WHERE topic_id = %(topic_id)s::uuid
