-- Store a whole batch at once, where one server has every key.
--
-- KEYS: the topic's incarnations, the partition's watermark, its filled mark, its rules, the offset
-- before which runs were begun, and the keys of the entities. ARGV: the life of the server in which
-- states were read, the incarnation, the offsets at which the run begins and ends, whether a watermark
-- and a filled mark must exist ("1" or ""), the id of the rules that decided the run, and the arguments
-- of the entities (`entities.lua`).
-- Returns {"another life", the life}; {"recreated"} for a run of an incarnation that is over; {"other
-- rules"} where newer ones hold; and {"moved", watermark} where the run does not begin at the
-- watermark, or where the watermark or the mark is missing: all with nothing written. Else it returns
-- what `write` does. The watermark moves to the run's end if every entity was written; if not, the
-- others are ahead of it.

local now = life()
if now ~= ARGV[1] then
  return {'another life', now}
end

local current = redis.call('LINDEX', KEYS[1], -1)
if current and current ~= ARGV[2] then
  return {'recreated'}
end
if others_hold(redis.call('GET', KEYS[4]), ARGV[7], ARGV[4]) then
  return {'other rules'}
end
local stored = redis.call('GET', KEYS[2])
local filled = redis.call('GET', KEYS[3])
if (ARGV[5] ~= '' and not stored) or (ARGV[6] ~= '' and filled ~= FILLED_MARK) then
  return {'moved', ''}
end
if stored and stored ~= ARGV[3] then
  return {'moved', stored}
end
local conflicts = write(6, 8)
if #conflicts == 0 then
  redis.call('SET', KEYS[2], ARGV[4])
else
  may_be_ahead(KEYS[5], ARGV[4])
end
return conflicts
