-- Compare and swap the state of entities that share a hash tag (or of any, on a single server).
--
-- The first part of a script, before `store.lua` or `commit.lua`. `STATE_…`, `ROW_…` and `MARK` are
-- the prelude (`scripts.py`), made from the layouts in `registry/formats`.
--
-- Each entity has these keys: of its state, of its row, of the set of members, and where it is one,
-- of the last close in each of its groups, one more than there are separators in it; and these
-- arguments: the expected origin and count of ticks ("" for none), the header, the row, the member
-- ("" for none), the number of ring pieces, and for each piece its offset and its bytes.
-- Where the stored header says how many ticks the ring holds, the one in the arguments says how many
-- are added, or, below zero, how many are in a ring that replaces what is stored.
-- `==` compares bytes; `<` would follow the locale.

local RING_TYPES = STATE_ROOM_TYPE .. STATE_TICK_BYTES_TYPE .. STATE_HELD_TYPE
local FIRST_LAYOUT_BYTES = STATE_MARK - 1

-- The slot of a ring that holds tick number `ordinal`, and how many of `many` ticks from that one on
-- come before the ring wraps.
local function slots(ordinal, many, room)
  local first = ordinal % room
  return first, math.min(many, room - first)
end

-- Rewrites a state whose ring has another size, or whose layout is the first one, and returns how
-- many ticks it then holds: the newest ones that fit.
local function convert(key, stored, room, tick_bytes)
  local count = struct.unpack(STATE_COUNT_TYPE, stored, STATE_COUNT)
  local all = redis.call('GET', key)
  local ring, old_room, bytes, held = FIRST_LAYOUT_BYTES, nil, tick_bytes, nil
  if string.sub(stored, STATE_MARK, STATE_MARK_END) == MARK then
    ring = STATE_BYTES
    old_room, bytes, held = struct.unpack(RING_TYPES, stored, STATE_ROOM)
  else
    old_room = math.floor((#all - ring) / bytes)
    held = math.min(count, old_room)
  end
  held = math.min(held, room)
  local first, before_wrap = slots(count - held, held, old_room)
  local start, size = ring + first * bytes, before_wrap * bytes
  local newest = string.sub(all, start + 1, start + size)
    .. string.sub(all, ring + 1, ring + (held - before_wrap) * bytes)
  first, before_wrap = slots(count - held, held, room)
  size = before_wrap * bytes
  redis.call('SET', key, string.sub(stored, 1, FIRST_LAYOUT_BYTES))
  redis.call('SETRANGE', key, STATE_BYTES + first * bytes, string.sub(newest, 1, size))
  if held > before_wrap then
    redis.call('SETRANGE', key, STATE_BYTES, string.sub(newest, size + 1))
  end
  return held
end

-- The row schema of a packed row, 0 where there is no row.
local function schema(row)
  if #row < ROW_SCHEMA_ID_END then
    return 0
  end
  return (struct.unpack(ROW_SCHEMA_ID_TYPE, row, ROW_SCHEMA_ID))
end

-- Whether the event time that a last close begins with is later than the one in these bytes. In one
-- number of Lua the last digits of a time would be lost.
local function later(close, time)
  local high, low = struct.unpack('>I4I4', close)
  local other_high, other_low = struct.unpack('>I4I4', time)
  return high > other_high or (high == other_high and low > other_low)
end

-- The index of the key after those of members and last closes, which begin at KEYS[key].
local function following(key, member)
  if member == '' then
    return key + 1
  end
  local _, separators = string.gsub(member, SEPARATOR, '')
  return key + 2 + separators
end

-- Makes an entity a member, or if it is closed, none, and its close the last one of its groups unless
-- a later one is known. The keys of these begin at KEYS[key]. An entity without a row is a member, so
-- that its sum has no value.
local function belong(key, member, header, row)
  if member == '' then
    return
  end
  local is_closed = string.sub(header, STATE_FILL, STATE_FILL_END) == CLOSED
  if not is_closed or #row < ROW_EVENT_TIME_END then
    redis.call('SADD', KEYS[key], member)
    return
  end
  redis.call('SREM', KEYS[key], member)
  local time = string.sub(row, ROW_EVENT_TIME, ROW_EVENT_TIME_END)
  for group = key + 1, following(key, member) - 1 do
    local close = redis.call('GET', KEYS[group])
    if not close or not later(close, time) then
      redis.call('SET', KEYS[group], time .. member)
    end
  end
end

-- Writes the entities whose keys begin at KEYS[key], and arguments at ARGV[arg]. Returns the indexes
-- (from 1) of the entities whose stored state is not the expected one, and as negative numbers those
-- of the entities that have a row in a newer row schema; nothing of these entities was written.
local function write(key, arg)
  local conflicts = {}
  local entity = 0
  while key <= #KEYS do
    entity = entity + 1
    local state, row = KEYS[key], KEYS[key + 1]
    local expected, header, packed, member = ARGV[arg], ARGV[arg + 1], ARGV[arg + 2], ARGV[arg + 3]
    local pieces = tonumber(ARGV[arg + 4])
    arg = arg + 5
    local stored = redis.call('GETRANGE', state, 0, STATE_BYTES - 1)
    local identity = string.sub(stored, STATE_TOPIC_ID, STATE_INDEX_END)
      .. string.sub(stored, STATE_COUNT, STATE_COUNT_END)
    local room, tick_bytes, added = struct.unpack(RING_TYPES, header, STATE_ROOM)
    if identity ~= expected then
      conflicts[#conflicts + 1] = entity
    elseif
      added >= 0
      and schema(redis.call('GETRANGE', row, 0, ROW_SCHEMA_ID_END - 1)) > schema(packed)
    then
      conflicts[#conflicts + 1] = -entity
    else
      local held = 0
      if added < 0 then
        redis.call('DEL', state)
        added = -added
      elseif stored ~= '' then
        local ring = string.sub(stored, STATE_MARK, STATE_TICK_BYTES_END)
        if ring == string.sub(header, STATE_MARK, STATE_TICK_BYTES_END) then
          held = struct.unpack(STATE_HELD_TYPE, stored, STATE_HELD)
        else
          held = convert(state, stored, room, tick_bytes)
        end
      end
      held = struct.pack(STATE_HELD_TYPE, math.min(room, held + added))
      redis.call('SETRANGE', state, 0, string.sub(header, 1, STATE_TICK_BYTES_END) .. held)
      for piece = 0, pieces - 1 do
        redis.call('SETRANGE', state, ARGV[arg + 2 * piece], ARGV[arg + 2 * piece + 1])
      end
      redis.call('SET', row, packed)
      belong(key + 2, member, header, packed)
    end
    arg = arg + 2 * pieces
    key = following(key + 2, member)
  end
  return conflicts
end

