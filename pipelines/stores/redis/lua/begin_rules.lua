-- Refuse what other rules than these decide of a partition, from an offset on.
--
-- KEYS: the partition's watermark, the offset before which runs were begun, its rules. ARGV: all its
-- rules as `rules.lua` reads them ("" for none), and the offset at which the newest begin ("" where
-- they are recorded already).
-- Returns false when that is so; the watermark or the end of a run that was begun, with nothing
-- changed, when it is past the offset.

for key = 1, 2 do
  local stored = redis.call('GET', KEYS[key])
  if stored and ARGV[2] ~= '' and tonumber(stored) > tonumber(ARGV[2]) then
    return stored
  end
end
if ARGV[1] == '' then
  redis.call('DEL', KEYS[3])
else
  redis.call('SET', KEYS[3], ARGV[1])
end
return false
