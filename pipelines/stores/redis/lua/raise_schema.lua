-- Have runs in an older row schema of a source refused.
--
-- KEYS: the greatest row schema of the source. ARGV: the row schema.

if tonumber(redis.call('GET', KEYS[1]) or 0) < tonumber(ARGV[1]) then
  redis.call('SET', KEYS[1], ARGV[1])
end
return false
