-- What came of an edit, and up to which tick the rows behind it were compared.
UPDATE tickwell.repair_edits SET
    outcome = %(outcome)s, event_time = %(event_time)s, sequence = %(sequence)s,
    settled_in = %(schema)s, settled_time = %(settled_time)s,
    settled_sequence = %(settled_sequence)s, open = %(open)s
WHERE topic_id = %(topic_id)s::uuid AND partition = %(partition)s
    AND "offset" = %(offset)s AND index = %(element)s
