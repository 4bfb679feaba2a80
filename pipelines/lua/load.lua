-- The states of entities that share a hash tag (or of any, on a single server).
--
-- KEYS: the state keys. ARGV: bytes of the header, bytes of a tick, ticks of the ring, ticks wanted.
-- Returns for each key the header followed by the newest ticks, oldest first; "" for no state.

local header_bytes, tick_bytes = tonumber(ARGV[1]), tonumber(ARGV[2])
local history, depth = tonumber(ARGV[3]), tonumber(ARGV[4])
local states = {}
for place, key in ipairs(KEYS) do
  local header = redis.call('GETRANGE', key, 0, header_bytes - 1)
  if #header < header_bytes then
    states[place] = ''
  else
    -- the count of accepted ticks follows the origin (32 bytes) and the sequence (8)
    local count = struct.unpack('>I8', header, 41)
    local ticks = math.min(count, depth, history)
    local first = (count - ticks) % history
    local before_wrap = math.min(ticks, history - first)
    local start = header_bytes + first * tick_bytes
    local newest = ''
    if before_wrap > 0 then
      newest = redis.call('GETRANGE', key, start, start + before_wrap * tick_bytes - 1)
    end
    if ticks > before_wrap then
      local wrapped = (ticks - before_wrap) * tick_bytes
      newest = newest .. redis.call('GETRANGE', key, header_bytes, header_bytes + wrapped - 1)
    end
    states[place] = header .. newest
  end
end
return states
