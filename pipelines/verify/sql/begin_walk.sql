-- The entity of a source up to which a round has come; nobody else moves it meanwhile.
INSERT INTO tickwell.verified_to AS known (source, entity) VALUES (%(source)s, '')
ON CONFLICT (source) DO UPDATE SET entity = known.entity RETURNING entity
