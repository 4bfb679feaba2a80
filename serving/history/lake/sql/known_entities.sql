-- Those of some entities, by their numbers, of which a source has ever had a tick.
SELECT asked.number
FROM unnest(%(numbers)s::integer[], %(entities)s::text[]) AS asked (number, entity)
JOIN tickwell.entities AS known ON known.source = %(source)s AND known.entity = asked.entity
