-- Put newer rows in the place of those that hot holds, and in that of leases.
--
-- KEYS: the partition's mark, then rows, then the leases of these rows. ARGV: the token that the mark
-- must hold, then the packed rows. `ROW_…` and `HOT_…` are of the prelude (`scripts.py`).
--
-- Returns 1, or 0 with nothing written where the mark holds another token or has ended. Leases end. A
-- row that is not there is made where it had a lease: a reader wants it, and may not put in what it has
-- read. One under the same token that comes from a later tick, or from the same one and is in a newer
-- row schema, is left: a reader has put it in. One of another home is removed, since which of the two
-- is newer cannot be known here.

local function later(one, other)
  local offset = struct.unpack(HOT_OFFSET_TYPE, one, HOT_OFFSET)
  local other_offset = struct.unpack(ROW_OFFSET_TYPE, other, ROW_OFFSET)
  if offset ~= other_offset then
    return offset > other_offset
  end
  local index = struct.unpack(HOT_INDEX_TYPE, one, HOT_INDEX)
  local other_index = struct.unpack(ROW_INDEX_TYPE, other, ROW_INDEX)
  if index ~= other_index then
    return index > other_index
  end
  return struct.unpack(HOT_SCHEMA_ID_TYPE, one, HOT_SCHEMA_ID)
    >= struct.unpack(ROW_SCHEMA_ID_TYPE, other, ROW_SCHEMA_ID)
end

local token = ARGV[1]
if redis.call('GET', KEYS[1]) ~= token then
  return 0
end
for i = 2, #ARGV do
  local key, row = KEYS[i], ARGV[i]
  local is_wanted = redis.call('DEL', KEYS[#ARGV - 1 + i]) == 1
  local there = redis.call('GET', key)
  if not there then
    if is_wanted then
      redis.call('SET', key, token .. row)
    end
  else
    local home = string.sub(row, ROW_TOPIC_ID, ROW_PARTITION_END)
    if #there < HOT_BYTES or string.sub(there, HOT_TOPIC_ID, HOT_PARTITION_END) ~= home then
      redis.call('DEL', key)
    elseif string.sub(there, HOT_TOKEN, HOT_TOKEN_END) ~= token or not later(there, row) then
      redis.call('SET', key, token .. row)
    end
  end
end
return 1
