-- Mark a partition as filled, once all its entities are restored, and set its watermark.
--
-- KEYS: the partition's filled mark, its watermark. ARGV: the token that the mark must hold, the
-- watermark ("" for none). Returns 1, or 0 with nothing done when the mark holds another value:
-- Redis was emptied meanwhile, or another process finished first. A watermark never goes back.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
local stored = redis.call('GET', KEYS[2])
if ARGV[2] ~= '' and (not stored or tonumber(stored) < tonumber(ARGV[2])) then
  redis.call('SET', KEYS[2], ARGV[2])
end
redis.call('SET', KEYS[1], FILLED_MARK)
return 1
