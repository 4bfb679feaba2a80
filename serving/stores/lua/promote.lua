-- Puts rows in, each under its lease, which ends with that.
-- KEYS are the lease, the row and the mark of each entity in turn. ARGV[1] is the nonce of the leases,
-- what follows is of each entity a token and the row behind it; "" only ends the lease.
-- Returns 1 for each row that was put in, else 0.
local put = {}
for number = 1, #KEYS / 3 do
  local lease, row, mark = KEYS[3 * number - 2], KEYS[3 * number - 1], KEYS[3 * number]
  local value = ARGV[number + 1]
  put[number] = 0
  if redis.call('GET', lease) == ARGV[1] then
    redis.call('DEL', lease)
    if value ~= '' and redis.call('GET', mark) == string.sub(value, HOT_TOKEN, HOT_TOKEN_END) then
      redis.call('SET', row, value)
      put[number] = 1
    end
  end
end
return put
