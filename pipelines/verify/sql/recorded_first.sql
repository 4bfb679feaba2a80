-- The differences that were found first.
SELECT place, kind, source, entity, event_time, sequence, feature, found, expected
FROM tickwell.found_differences ORDER BY found_at, digest LIMIT %(most)s
