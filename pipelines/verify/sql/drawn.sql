-- Entities of all sources, in an order that a seed decides.
SELECT source, entity FROM tickwell.entities
ORDER BY md5(%(seed)s || '/' || source || '/' || entity), source, entity LIMIT %(number)s
