-- The states of entities that share a hash tag (or of any, on a single server).
--
-- KEYS: the state keys. ARGV: bytes of a tick, ticks wanted.
-- Returns for each key the header, followed by the newest ticks, oldest first; "" for no state. A
-- state of the first layout gets a header of the current one. `STATE_…` and `MARK` are the prelude
-- (`scripts.py`), made from the layouts in `registry/formats`.

local RING_TYPES = STATE_ROOM_TYPE .. STATE_TICK_BYTES_TYPE .. STATE_HELD_TYPE
local FIRST_LAYOUT_BYTES = STATE_MARK - 1

local tick_bytes, depth = tonumber(ARGV[1]), tonumber(ARGV[2])
local states = {}
for index, key in ipairs(KEYS) do
  local header = redis.call('GETRANGE', key, 0, STATE_BYTES - 1)
  if header == '' then
    states[index] = ''
  else
    local count = struct.unpack(STATE_COUNT_TYPE, header, STATE_COUNT)
    local ring, room, bytes, held
    if string.sub(header, STATE_MARK, STATE_MARK_END) == MARK then
      ring = STATE_BYTES
      room, bytes, held = struct.unpack(RING_TYPES, header, STATE_ROOM)
    else
      ring, bytes = FIRST_LAYOUT_BYTES, tick_bytes
      room = math.floor((redis.call('STRLEN', key) - ring) / bytes)
      held = math.min(count, room)
      header = string.sub(header, 1, ring) .. MARK .. struct.pack(RING_TYPES, room, bytes, held)
    end
    local newest = ''
    if bytes == tick_bytes then
      local ticks = math.min(held, depth)
      local first = (count - ticks) % room
      local before_wrap = math.min(ticks, room - first)
      local start = ring + first * bytes
      if before_wrap > 0 then
        newest = redis.call('GETRANGE', key, start, start + before_wrap * bytes - 1)
      end
      if ticks > before_wrap then
        local wrapped = (ticks - before_wrap) * bytes
        newest = newest .. redis.call('GETRANGE', key, ring, ring + wrapped - 1)
      end
    end
    states[index] = header .. newest
  end
end
return states
