-- Those of some entities that have rows, and the row schemas in which they may be, the newest first.
SELECT
    ARRAY(SELECT id FROM tickwell.row_schemas WHERE source = %(source)s ORDER BY id DESC),
    ARRAY(
        SELECT known.entity FROM tickwell.entities AS known
        WHERE known.source = %(source)s AND known.entity = ANY (%(entities)s::text[])
    )
