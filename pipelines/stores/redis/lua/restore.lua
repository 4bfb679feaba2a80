-- Write entities as another store knows them (`entities.lua`), in any row schema.
--
-- KEYS: the fill epoch of their partition, then as there. ARGV: what the epoch becomes ("" for
-- entities whose home is elsewhere, and on a cluster), then as there. A worker compares only entities
-- that it does not know, so it must learn that others were written: the epoch tells it.

if ARGV[1] ~= '' then
  redis.call('SET', KEYS[1], ARGV[1])
end
return write(2, 2, false)
