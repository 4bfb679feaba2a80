-- Make an incarnation of a topic the current one of its name, unless it is an earlier one.
--
-- KEYS: the list of the name's incarnations, the newest last. ARGV: the incarnation's id.
-- Returns 1, or 0 with nothing changed when a newer incarnation is known.

local known = redis.call('LRANGE', KEYS[1], 0, -1)
if known[#known] == ARGV[1] then
  return 1
end
for _, id in ipairs(known) do
  if id == ARGV[1] then
    return 0
  end
end
redis.call('RPUSH', KEYS[1], ARGV[1])
return 1
