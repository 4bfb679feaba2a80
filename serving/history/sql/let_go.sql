-- The time from which on Postgres has all rows of a source, where it let go of some, and the newest file of the
-- lake that has rows of a day or of an earlier one.
SELECT tickwell.rows_since(%(source)s), (
    SELECT file.path FROM tickwell.lake_files AS file
    WHERE file.source = %(source)s AND file.day <= %(day)s::date
    ORDER BY file.day DESC, file.schema_id DESC LIMIT 1
)
