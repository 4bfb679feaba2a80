-- Set a partition's watermark, if it is the one that the run began at.
--
-- KEYS: the watermark. ARGV: what it must be ("" for never set), what it becomes.
-- Returns what is stored when that is another one.

local stored = redis.call('GET', KEYS[1]) or ''
if stored ~= ARGV[1] then
  return stored
end
redis.call('SET', KEYS[1], ARGV[2])
return false
