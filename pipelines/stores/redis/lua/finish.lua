-- Mark a partition as filled, once all its entities are restored, and set its watermark and its rules.
--
-- KEYS: the partition's filled mark, its watermark, its rules. ARGV: the token that the mark must hold,
-- the watermark ("" for none), and the rules that are recorded, as `rules.lua` reads them. Returns 1, or
-- 0 with nothing done when the mark holds another value: Redis was emptied meanwhile, or another
-- process finished first. A watermark never goes back, and no rules are forgotten: those of ARGV may
-- have been read before others were recorded.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
local known = redis.call('GET', KEYS[3]) or ''
for pair in string.gmatch(ARGV[3], '[^,]+') do
  if not string.find(',' .. known .. ',', ',' .. pair .. ',', 1, true) then
    known = known == '' and pair or known .. ',' .. pair
  end
end
if known ~= '' then
  redis.call('SET', KEYS[3], known)
end
local stored = redis.call('GET', KEYS[2])
if ARGV[2] ~= '' and (not stored or tonumber(stored) < tonumber(ARGV[2])) then
  redis.call('SET', KEYS[2], ARGV[2])
end
redis.call('SET', KEYS[1], FILLED_MARK)
return 1
