-- Write entities as another store knows them (`entities.lua`), in any row schema.
--
-- KEYS: the writer of their partition, the greatest row schema of the source, then as there. ARGV: the
-- greatest row schema of the rows, then as there. A sink compares only entities that it does not know;
-- so none may write the partition any more before it has begun anew, with states that it then loads.
-- Nor does it compare row schemas, entity by entity.

redis.call('DEL', KEYS[1])
if tonumber(redis.call('GET', KEYS[2]) or 0) < tonumber(ARGV[1]) then
  redis.call('SET', KEYS[2], ARGV[1])
end
return write(3, 2, false)
