-- Put newer rows in the place of those that hot holds.
--
-- KEYS: the partition's mark, then rows. ARGV: the token that the mark must hold, then for each key
-- the packed row. `ROW_…` and `HOT_…` are of the prelude (`scripts.py`).
--
-- Returns 1, or 0 with nothing written where the mark holds another token or has ended. A row that is
-- not there is not made. One under the same token that comes from a later tick is left: a reader has put
-- it in. One of another home is removed, since which of the two is newer cannot be known here.

local function later(one, other)
  local offset = struct.unpack(HOT_OFFSET_TYPE, one, HOT_OFFSET)
  local other_offset = struct.unpack(ROW_OFFSET_TYPE, other, ROW_OFFSET)
  if offset ~= other_offset then
    return offset > other_offset
  end
  return struct.unpack(HOT_INDEX_TYPE, one, HOT_INDEX) >= struct.unpack(ROW_INDEX_TYPE, other, ROW_INDEX)
end

local token = ARGV[1]
if redis.call('GET', KEYS[1]) ~= token then
  return 0
end
for i = 2, #KEYS do
  local key, row = KEYS[i], ARGV[i]
  local there = redis.call('GET', key)
  if there then
    local home = string.sub(row, ROW_TOPIC_ID, ROW_PARTITION_END)
    if #there < HOT_BYTES or string.sub(there, HOT_TOPIC_ID, HOT_PARTITION_END) ~= home then
      redis.call('DEL', key)
    elseif string.sub(there, HOT_TOKEN, HOT_TOKEN_END) ~= token or not later(there, row) then
      redis.call('SET', key, token .. row)
    end
  end
end
return 1
