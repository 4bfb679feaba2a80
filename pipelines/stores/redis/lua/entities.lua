-- Compare and swap the state of entities that share a hash tag (or of any, on a single server).
--
-- What `store.lua` and `commit.lua` have in common; each is this text followed by its own.
--
-- Of each entity there are three keys: of its state, its row, and its members; and these arguments:
-- the expected origin and count of ticks ("" for none), the header, the row, the member to add (""
-- for none), the number of ring pieces, and for each piece its offset and its bytes. The header
-- (`pipelines/stores/redis/state_bytes.py`) says as held how many ticks are added, or below zero how many there are
-- in a ring that takes the place of what is stored. `==` compares bytes; `<` would follow the
-- locale.

local HEADER_BYTES, MARK, MARK_AT = 80, 'layout2\255', 57
-- where the header has them: the origin, the sequence, the count
local ORIGIN_END, COUNT_BEGIN, COUNT_END = 32, 41, 48
local OLD_HEADER_BYTES = 56

-- Where in a ring `many` ticks from number `ordinal` on begin, and how many come before it wraps.
local function places(ordinal, many, room)
  local first = ordinal % room
  return first, math.min(many, room - first)
end

-- Rewrites a state whose ring has another size, or the layout before, and returns how many ticks it
-- then holds: the newest ones that there is room for.
local function convert(key, stored, room, tick_bytes)
  local count = struct.unpack('>I8', stored, 41)
  local all = redis.call('GET', key)
  local ring, old_room, bytes, held = OLD_HEADER_BYTES, nil, tick_bytes, nil
  if string.sub(stored, MARK_AT, MARK_AT + 7) == MARK then
    ring = HEADER_BYTES
    old_room, bytes, held = struct.unpack('>I4I4I8', stored, 65)
  else
    old_room = math.floor((#all - ring) / bytes)
    held = math.min(count, old_room)
  end
  held = math.min(held, room)
  local first, before_wrap = places(count - held, held, old_room)
  local start, size = ring + first * bytes, before_wrap * bytes
  local newest = string.sub(all, start + 1, start + size)
    .. string.sub(all, ring + 1, ring + (held - before_wrap) * bytes)
  first, before_wrap = places(count - held, held, room)
  size = before_wrap * bytes
  redis.call('SET', key, string.sub(stored, 1, OLD_HEADER_BYTES))
  redis.call('SETRANGE', key, HEADER_BYTES + first * bytes, string.sub(newest, 1, size))
  if held > before_wrap then
    redis.call('SETRANGE', key, HEADER_BYTES, string.sub(newest, size + 1))
  end
  return held
end

-- The row schema of a packed row (`registry/formats/row.py`), 0 where there is none.
local function schema(row)
  return #row < 5 and 0 or (struct.unpack('>I4', row, 2))
end

-- Writes the entities whose keys begin at KEYS[key], and arguments at ARGV[arg]. Returns the places
-- (from 1) of those whose stored state is not the expected one, and below zero of those that have a
-- row in a newer row schema; nothing of theirs was written.
local function write(key, arg)
  local conflicts = {}
  for entity = 1, (#KEYS - key + 1) / 3 do
    local state, row, members = KEYS[key], KEYS[key + 1], KEYS[key + 2]
    local expected, header, packed, member = ARGV[arg], ARGV[arg + 1], ARGV[arg + 2], ARGV[arg + 3]
    local pieces = tonumber(ARGV[arg + 4])
    arg = arg + 5
    local stored = redis.call('GETRANGE', state, 0, HEADER_BYTES - 1)
    local identity = string.sub(stored, 1, ORIGIN_END) .. string.sub(stored, COUNT_BEGIN, COUNT_END)
    local room, tick_bytes, added = struct.unpack('>I4I4i8', header, 65)
    if identity ~= expected then
      conflicts[#conflicts + 1] = entity
    elseif added >= 0 and schema(redis.call('GETRANGE', row, 0, 4)) > schema(packed) then
      conflicts[#conflicts + 1] = -entity
    else
      local held = 0
      if added < 0 then
        redis.call('DEL', state)
        added = -added
      elseif stored ~= '' then
        -- mark, room and bytes of a tick
        if string.sub(stored, MARK_AT, 72) == string.sub(header, MARK_AT, 72) then
          held = struct.unpack('>I8', stored, 73)
        else
          held = convert(state, stored, room, tick_bytes)
        end
      end
      held = math.min(room, held + added)
      redis.call('SETRANGE', state, 0, string.sub(header, 1, 72) .. struct.pack('>I8', held))
      for piece = 0, pieces - 1 do
        redis.call('SETRANGE', state, ARGV[arg + 2 * piece], ARGV[arg + 2 * piece + 1])
      end
      redis.call('SET', row, packed)
      if member ~= '' then
        redis.call('SADD', members, member)
      end
    end
    arg = arg + 2 * pieces
    key = key + 3
  end
  return conflicts
end

