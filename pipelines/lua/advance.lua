-- Set a partition's watermark, if it is the one that the run began at.
--
-- KEYS: the watermark, the mark that its partition is filled. ARGV: what the first must be ("" for
-- never set), what it becomes, and what the second must be ("" for whatever it is).
-- Returns what is stored as the first when that is another one, or the second is.

local stored = redis.call('GET', KEYS[1]) or ''
if stored ~= ARGV[1] or (ARGV[3] ~= '' and redis.call('GET', KEYS[2]) ~= ARGV[3]) then
  return stored
end
redis.call('SET', KEYS[1], ARGV[2])
return false
