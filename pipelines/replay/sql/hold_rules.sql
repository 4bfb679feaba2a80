-- Until the transaction ends no other rules of the source are recorded.
SELECT name FROM tickwell.sources WHERE name = %(source)s FOR SHARE
