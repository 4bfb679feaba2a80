-- Make entities members of their groups, before any of them is restored.
--
-- KEYS: of each entity those that `entities.lua` says. ARGV: of each entity its member.
-- What is stored decides: an entity that is closed is none, one that is open or not restored yet is
-- one. So whatever a worker writes meanwhile, nobody is a member or none by an older state.

local key = 1
for _, member in ipairs(ARGV) do
  local header = redis.call('GETRANGE', KEYS[key], 0, STATE_BYTES - 1)
  local row = redis.call('GETRANGE', KEYS[key + 1], 0, ROW_EVENT_TIME_END - 1)
  belong(key + 2, member, header, row)
  key = following(key + 2, member)
end
return false
