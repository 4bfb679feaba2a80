-- Takes leases for a reader, whose nonce and milliseconds are ARGV[1] and ARGV[2].
-- KEYS are the lease and the row of each entity in turn. None is taken of a row that is there and is
-- believed. Returns 1 for each lease that was taken, else 0.
local function mark_of(row)
  local topic = string.sub(row, HOT_TOPIC_ID, HOT_TOPIC_ID_END)
  local hex = string.gsub(topic, '.', function(c) return string.format('%02x', string.byte(c)) end)
  local partition = struct.unpack(HOT_PARTITION_TYPE, row, HOT_PARTITION)
  return redis.call('GET', string.format('th:mark:%s:%d', hex, partition))
end

local taken = {}
for number = 1, #KEYS / 2 do
  local lease, row = KEYS[2 * number - 1], redis.call('GET', KEYS[2 * number])
  taken[number] = 0
  local is_there = row and #row >= HOT_BYTES
  if not is_there or string.sub(row, HOT_TOKEN, HOT_TOKEN_END) ~= mark_of(row) then
    if redis.call('SET', lease, ARGV[1], 'NX', 'PX', ARGV[2]) then
      taken[number] = 1
    end
  end
end
return taken
