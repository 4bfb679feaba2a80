-- Has the transaction read rows by the primary key, in whose order nothing has to be sorted. For many ticks
-- of an entity the planner may think that to read all rows and sort them, for each entity anew, is cheaper.
SET LOCAL enable_bitmapscan = off;
SET LOCAL enable_seqscan = off;
SET LOCAL enable_sort = off
