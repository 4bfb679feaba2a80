-- Make entities members of their groups, before any of them is restored.
--
-- KEYS: the hash of states, then as `members_of.lua` says. ARGV: of each entity its name, and its
-- member. What is stored decides: an entity that is closed is none, one that is open or not restored
-- yet is one. So whatever a worker writes meanwhile, nobody is a member or none by an older state.

local key = 2
for arg = 1, #ARGV, 2 do
  local state = redis.call('HGET', KEYS[1], ARGV[arg])
  local closed = ''
  if state and string.sub(state, STATE_FILL, STATE_FILL_END) == CLOSED then
    closed = string.sub(state, STATE_EVENT_TIME, STATE_EVENT_TIME_END)
  end
  local past = past_member(key, arg + 1)
  join(key, past, ARGV[arg + 1], closed)
  key = past
end
return false
