-- Begin to fill a partition, or join who has begun.
--
-- KEYS: whether it is filled, its watermark. ARGV: a token of the caller's own.
-- Returns the token under which it is being filled; false when it is filled. A partition with a
-- watermark is: that is written last.

local filled = redis.call('GET', KEYS[1])
if filled == FILLED_MARK then
  return false
end
if redis.call('EXISTS', KEYS[2]) == 1 then
  redis.call('SET', KEYS[1], FILLED_MARK)
  return false
end
if not filled then
  filled = ARGV[1]
  redis.call('SET', KEYS[1], filled)
end
return filled
