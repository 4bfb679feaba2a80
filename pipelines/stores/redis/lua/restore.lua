-- Write entities as another store knows them (`entities.lua`), in any row schema.
--
-- KEYS: the writer of their partition, then as there. ARGV: as there. A sink compares only entities
-- that it does not know; so none may write the partition any more before it has begun anew, with
-- states that it then loads.

redis.call('DEL', KEYS[1])
return write(2, 1, false)
