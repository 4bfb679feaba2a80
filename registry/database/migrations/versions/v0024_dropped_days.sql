-- Since when Postgres has let go of a day that the lake has: of its rows it still has those that a worker
-- or a rebuild may need, and what was stored since. The day is what its files and Postgres have together.
ALTER TABLE tickwell.lake_days ADD COLUMN dropped_at timestamptz;

-- Files have loaded rows, too, from now on: days that may have such rows are written anew.
UPDATE tickwell.lake_days SET changes = changes - 1
WHERE source IN (SELECT source FROM tickwell.loads);
