-- Set a partition's watermark, if it is the one that the run began at.
--
-- KEYS: the watermark, the mark that its partition is filled, its rules. ARGV: the watermark that is
-- expected ("" for none), the new one, the mark that is expected ("" for any), and the id of the rules
-- that decided the run.
-- Returns false when the watermark is set; the stored watermark ("" for none) when it or the mark is
-- not the expected one; and {"other rules"} where newer ones hold.

if others_hold(redis.call('GET', KEYS[3]), ARGV[4], ARGV[2]) then
  return {'other rules'}
end
local stored = redis.call('GET', KEYS[1]) or ''
if stored ~= ARGV[1] or (ARGV[3] ~= '' and redis.call('GET', KEYS[2]) ~= ARGV[3]) then
  return stored
end
redis.call('SET', KEYS[1], ARGV[2])
return false
