-- A whole batch at once, where one server has every key.
--
-- KEYS: the topic's incarnations, the partition's watermark, the mark that it is filled, and those
-- of the entities. ARGV: the incarnation, where the run begins, where it ends, whether there must be
-- a watermark, and a mark ("1" or ""), and those of the entities.
-- Returns "recreated" for a run of an incarnation that is over, {"moved", watermark} where the run
-- does not begin at it or something is gone that must be there, with nothing written; else what
-- `write` returns. The watermark moves to the run's end if every entity was written.

local current = redis.call('LINDEX', KEYS[1], -1)
if current and current ~= ARGV[1] then
  return 'recreated'
end
local stored = redis.call('GET', KEYS[2])
local filled = redis.call('GET', KEYS[3])
if (ARGV[4] ~= '' and not stored) or (ARGV[5] ~= '' and not filled) then
  return {'moved', ''}
end
if stored and stored ~= ARGV[2] then
  return {'moved', stored}
end
local conflicts = write(4, 6)
if #conflicts == 0 then
  redis.call('SET', KEYS[2], ARGV[3])
end
return conflicts
