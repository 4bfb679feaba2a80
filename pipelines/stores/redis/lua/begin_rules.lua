-- Refuse what other rules than these decide of a partition, from an offset on.
--
-- KEYS: the partition's watermark, its rules. ARGV: the id of the rules, and the offset.
-- Returns false when that is so; the stored watermark, with nothing changed, when it is past the
-- offset.

local stored = redis.call('GET', KEYS[1])
if stored and tonumber(stored) > tonumber(ARGV[2]) then
  return stored
end
redis.call('SET', KEYS[2], ARGV[1] .. ':' .. ARGV[2])
return false
