-- Put rows in a newer row schema in the place of others of the same ticks.
--
-- KEYS: the hashes of rows and of states. ARGV: the row schema; of each entity its name, the identity
-- of the state that the row was computed from, and the row. Returns the indexes (from 1) of those whose
-- state is another one by now, of which nothing was written: a run was stored meanwhile.

local refused = {}
for arg = 2, #ARGV, 3 do
  local name = ARGV[arg]
  local state = redis.call('HGET', KEYS[2], name) or ''
  if string.sub(state, 1, IDENTITY_BYTES) ~= ARGV[arg + 1] then
    refused[#refused + 1] = (arg + 1) / 3
  elseif schema(redis.call('HGET', KEYS[1], name)) < tonumber(ARGV[1]) then
    redis.call('HSET', KEYS[1], name, ARGV[arg + 2])
  end
end
return refused
