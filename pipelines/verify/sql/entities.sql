-- The next entities of a source after one, by name.
SELECT entity FROM tickwell.entities
WHERE source = %(source)s AND (%(after)s::text IS NULL OR entity > %(after)s)
ORDER BY entity LIMIT %(many)s
