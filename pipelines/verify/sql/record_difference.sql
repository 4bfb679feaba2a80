-- Puts a difference on record, once, while there are not so many; who has put it there gets a row.
INSERT INTO tickwell.found_differences (
    digest, place, kind, source, entity, event_time, sequence, feature, found, expected
)
SELECT
    %(digest)s, %(place)s, %(kind)s, %(source)s, %(entity)s::text[], %(event_time)s, %(sequence)s,
    %(feature)s, %(found)s, %(expected)s
WHERE (SELECT count(*) FROM tickwell.found_differences) < %(most)s
ON CONFLICT DO NOTHING RETURNING 1
