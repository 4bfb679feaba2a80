-- A partition's entities are all there: set its watermark.
--
-- KEYS: whether it is filled, its watermark. ARGV: what the first must hold, the watermark ("" for
-- none). Returns 0, with nothing done, when it holds something else: Redis was emptied meanwhile,
-- or somebody else was done first. A watermark never goes back.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
local stored = redis.call('GET', KEYS[2])
if ARGV[2] ~= '' and (not stored or tonumber(stored) < tonumber(ARGV[2])) then
  redis.call('SET', KEYS[2], ARGV[2])
end
redis.call('SET', KEYS[1], FILLED_MARK)
return 1
