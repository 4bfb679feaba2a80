-- Compare and swap the state of entities that share a hash tag (or of any, on a single server).
--
-- KEYS: for each entity its state key, its row key, and its members key.
-- ARGV: for each entity the expected origin and count of ticks ("" for none), the header, the row,
--       the member to add ("" for none), the number of ring pieces, and for each piece its offset
--       and its bytes.
-- Returns the places (from 1) of the entities whose stored state is not the expected one; nothing
-- of theirs was written. `==` compares bytes; `<` would follow the locale.

-- where the header has them: the origin, the sequence, the count
local ORIGIN_END, COUNT_BEGIN, COUNT_END = 32, 41, 48
local conflicts = {}
local arg = 1
for entity = 1, #KEYS / 3 do
  local state, row, members = KEYS[3 * entity - 2], KEYS[3 * entity - 1], KEYS[3 * entity]
  local expected, header, packed, member = ARGV[arg], ARGV[arg + 1], ARGV[arg + 2], ARGV[arg + 3]
  local pieces = tonumber(ARGV[arg + 4])
  arg = arg + 5
  local stored = redis.call('GETRANGE', state, 0, COUNT_END - 1)
  if string.sub(stored, 1, ORIGIN_END) .. string.sub(stored, COUNT_BEGIN) == expected then
    redis.call('SETRANGE', state, 0, header)
    for piece = 0, pieces - 1 do
      redis.call('SETRANGE', state, ARGV[arg + 2 * piece], ARGV[arg + 2 * piece + 1])
    end
    redis.call('SET', row, packed)
    if member ~= '' then
      redis.call('SADD', members, member)
    end
  else
    conflicts[#conflicts + 1] = entity
  end
  arg = arg + 2 * pieces
end
return conflicts
