-- End a partition's mark, if it still holds a token.
--
-- KEYS: the mark. ARGV: the token.

if redis.call('GET', KEYS[1]) == ARGV[1] then
  redis.call('DEL', KEYS[1])
end
return false
