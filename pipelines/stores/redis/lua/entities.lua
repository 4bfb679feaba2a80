-- Compare and write entities, each for itself, whose hashes are of one hash slot (or of any, on a
-- single server).
--
-- A part of a script, after `members_of.lua` and before `store.lua`, `restore.lua` or
-- `restore_slot.lua`. `ROW_…` and `IDENTITY_BYTES` are of the prelude (`scripts.py`), made from the
-- layouts in `registry/formats`.
--
-- KEYS: the hashes of rows, of states and of chunks, and of each entity that is a member of a group
-- those that `members_of.lua` says. ARGV: of each entity its name, the identity of the state that is
-- expected ("" for none), its row, its state, the number of new chunks, of each its field and its
-- ticks, the number of fields that are dropped, these, and what `members_of.lua` says.

-- The row schema of a packed row, 0 where there is no row.
local function schema(row)
  if not row or #row < ROW_SCHEMA_ID_END then
    return 0
  end
  return (struct.unpack(ROW_SCHEMA_ID_TYPE, row, ROW_SCHEMA_ID))
end

-- Writes the entities whose arguments begin at ARGV[arg], and whose hashes are KEYS[key] and the two
-- that follow. Returns the indexes (from 1) of the entities whose stored state is not the expected
-- one, and as negative numbers, with `ordered`, those of the entities that have a row in a newer row
-- schema; nothing of these entities was written.
local function write(key, arg, ordered)
  local rows, states, chunks = KEYS[key], KEYS[key + 1], KEYS[key + 2]
  local conflicts, entity, member_key = {}, 0, key + 3
  while arg <= #ARGV do
    entity = entity + 1
    local name, expected, row, state = ARGV[arg], ARGV[arg + 1], ARGV[arg + 2], ARGV[arg + 3]
    local added = arg + 4
    local dropped = added + 1 + 2 * tonumber(ARGV[added])
    arg = dropped + 1 + tonumber(ARGV[dropped])
    local stored = redis.call('HGET', states, name)
    if string.sub(stored or '', 1, IDENTITY_BYTES) ~= expected then
      conflicts[#conflicts + 1] = entity
      member_key, arg = past_member(member_key, arg)
    elseif ordered and schema(redis.call('HGET', rows, name)) > schema(row) then
      conflicts[#conflicts + 1] = -entity
      member_key, arg = past_member(member_key, arg)
    else
      -- in this order for what `commit.lua` says
      local member = arg
      member_key, arg = belong(member_key, arg)
      redis.call('HSET', rows, name, row)
      for chunk = added + 1, dropped - 1, 2 do
        redis.call('HSET', chunks, ARGV[chunk], ARGV[chunk + 1])
      end
      redis.call('HSET', states, name, state)
      for field = dropped + 1, member - 1 do
        redis.call('HDEL', chunks, ARGV[field])
      end
    end
  end
  return conflicts
end

