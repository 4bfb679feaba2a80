-- The entities of a source in each of some groups, which are ranges of names, numbered from 0.
SELECT asked.number, known.entity
FROM unnest(%(numbers)s::integer[], %(firsts)s::text[], %(ends)s::text[]) AS asked (number, first, past)
JOIN tickwell.entities AS known
    ON known.source = %(source)s
        AND known.entity >= asked.first COLLATE "C" AND known.entity < asked.past COLLATE "C"
ORDER BY asked.number, known.entity
