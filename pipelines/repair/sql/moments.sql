-- When edits of an entity that are made became known.
SELECT DISTINCT repairs.known_at
FROM tickwell.repair_edits
JOIN tickwell.repairs ON repairs.id = repair_edits.repair
WHERE repairs.source = %(source)s AND entity = %(entity)s AND outcome = %(made)s
ORDER BY repairs.known_at
