-- Rows of a file are not published to the topic of rejected ticks: who made the file is no producer of it.
UPDATE tickwell.rejected_ticks SET relayed_at = 'epoch'
WHERE topic_id = %(topic_id)s::uuid AND partition = %(partition)s
    AND "offset" >= %(base)s AND "offset" < %(following)s
