-- Note that all rows of a partition are carried over into a row schema.
--
-- KEYS: the partition's note. ARGV: the token that it must hold, and the row schema. Returns 1, or 0
-- where it holds another value: Redis was emptied meanwhile, entities were restored from Postgres, or
-- another process has begun to do the same.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[2])
return 1
