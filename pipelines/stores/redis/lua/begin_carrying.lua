-- Begin to carry rows over into a row schema, of the entities of a partition.
--
-- KEYS: the partition's note of how far that is. ARGV: a token of the caller, and the row schema.
-- Returns 1, or 0 with nothing changed where that is done already, or into a newer one.

local stored = tonumber(redis.call('GET', KEYS[1]) or '')
if stored and stored >= tonumber(ARGV[2]) then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1])
return 1
