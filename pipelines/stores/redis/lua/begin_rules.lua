-- Refuse what other rules than these decide of a partition, from an offset on.
--
-- KEYS: the partition's watermark, its rules. ARGV: all its rules as `rules.lua` reads them ("" for
-- none), and the offset at which the newest begin ("" where they are recorded already).
-- Returns false when that is so; the stored watermark, with nothing changed, when it is past the
-- offset.

local stored = redis.call('GET', KEYS[1])
if stored and ARGV[2] ~= '' and tonumber(stored) > tonumber(ARGV[2]) then
  return stored
end
if ARGV[1] == '' then
  redis.call('DEL', KEYS[2])
else
  redis.call('SET', KEYS[2], ARGV[1])
end
return false
