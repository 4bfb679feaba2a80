-- Begin to store a run in several calls, and say how far it may write.
--
-- KEYS: the partition's watermark, its filled mark, its rules, and the offset before which runs were
-- begun. ARGV: the id of the rules that decided the run, the offsets at which it begins and ends, and
-- whether a watermark and a filled mark must exist ("1" or "").
-- Returns the stored watermark ("" for none); {"other rules"} where newer ones hold; and {"moved",
-- watermark} where the run does not begin at the watermark, or where the watermark or the mark is
-- missing.

if others_hold(redis.call('GET', KEYS[3]), ARGV[1], ARGV[3]) then
  return {'other rules'}
end
local stored = redis.call('GET', KEYS[1])
local filled = redis.call('GET', KEYS[2])
if (ARGV[4] ~= '' and not stored) or (ARGV[5] ~= '' and filled ~= FILLED_MARK) then
  return {'moved', ''}
end
if stored and stored ~= ARGV[2] then
  return {'moved', stored}
end
may_be_ahead(KEYS[4], ARGV[3])
return stored or ''
