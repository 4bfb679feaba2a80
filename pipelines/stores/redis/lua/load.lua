-- The states of entities that share a hash tag (or of any, on a single server).
--
-- KEYS: the state keys. ARGV: bytes of a tick, ticks wanted.
-- Returns for each key the header (`pipelines/stores/redis/state_bytes.py`) followed by the newest ticks, oldest
-- first; "" for no state. A state of the layout before gets the header of this one.

local HEADER_BYTES, MARK, MARK_AT = 80, 'layout2\255', 57
local OLD_HEADER_BYTES = 56
local tick_bytes, depth = tonumber(ARGV[1]), tonumber(ARGV[2])
local states = {}
for place, key in ipairs(KEYS) do
  local header = redis.call('GETRANGE', key, 0, HEADER_BYTES - 1)
  if header == '' then
    states[place] = ''
  else
    -- the count of accepted ticks follows the origin (32 bytes) and the sequence (8)
    local count = struct.unpack('>I8', header, 41)
    local ring, room, bytes, held
    if string.sub(header, MARK_AT, MARK_AT + 7) == MARK then
      ring = HEADER_BYTES
      room, bytes, held = struct.unpack('>I4I4I8', header, 65)
    else
      ring, bytes = OLD_HEADER_BYTES, tick_bytes
      room = math.floor((redis.call('STRLEN', key) - ring) / bytes)
      held = math.min(count, room)
      header = string.sub(header, 1, ring) .. MARK .. struct.pack('>I4I4I8', room, bytes, held)
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
    states[place] = header .. newest
  end
end
return states
