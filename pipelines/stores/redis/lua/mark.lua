-- Begin or renew a partition's mark.
--
-- KEYS: the mark. ARGV: the token, the moment at which the mark is to end, the most milliseconds that
-- it may live from now on (should the clock have been set back), and whether it begins ("1" or "").
--
-- Moments are milliseconds of this server's clock, which is returned; or false with nothing done where a
-- mark that is renewed holds another token or has ended. One that has ended never lives again.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ends = math.min(tonumber(ARGV[2]), now + tonumber(ARGV[3]))
if ARGV[4] == '1' then
  redis.call('SET', KEYS[1], ARGV[1])
elseif redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return false
end
redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', ends))
return now
