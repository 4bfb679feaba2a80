-- The offsets before which live, and replays, have stored a partition; NULL where they have nothing.
SELECT
    (
        SELECT next_offset FROM tickwell.watermarks
        WHERE topic_id = %(topic_id)s::uuid AND partition = %(partition)s
    ) AS live,
    (
        SELECT max(greatest(next_offset, stored_to)) FROM tickwell.replays
        WHERE topic_id = %(topic_id)s::uuid AND partition = %(partition)s
            AND greatest(next_offset, stored_to) > start_offset
    ) AS replayed
