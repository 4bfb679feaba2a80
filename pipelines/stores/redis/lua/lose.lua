-- Have a partition filled again, because some of its entities are lost.
--
-- KEYS: the partition's watermark, its filled mark, the offset before which runs were begun. The
-- entities that are not lost have no watermark then, as if their runs were only begun.

local stored = redis.call('GET', KEYS[1])
if stored then
  may_be_ahead(KEYS[3], stored)
end
redis.call('DEL', KEYS[1], KEYS[2])
return false
