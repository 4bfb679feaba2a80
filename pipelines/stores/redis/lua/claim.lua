-- Begin to fill a partition, or join a process that has begun.
--
-- KEYS: the partition's filled mark, its watermark. ARGV: a token of the caller.
-- Returns the token under which the partition is being filled, or false when it is filled. A
-- partition with a watermark is filled, because the watermark is written last.

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
