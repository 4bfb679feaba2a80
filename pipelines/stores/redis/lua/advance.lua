-- Set a partition's watermark, if it is the one that the run began at.
--
-- KEYS: the watermark, the mark that its partition is filled. ARGV: what the first must be ("" for
-- never set), what it becomes, what the second must be ("" for whatever it is), and the life of the
-- server that states were read in ("" on a cluster, where each node has one of its own).
-- Returns what is stored as the first when that is another one, or the second is; {"another life",
-- the life} when it is.

if ARGV[4] ~= '' then
  local now = life()
  if now ~= ARGV[4] then
    return {'another life', now}
  end
end

local stored = redis.call('GET', KEYS[1]) or ''
if stored ~= ARGV[1] or (ARGV[3] ~= '' and redis.call('GET', KEYS[2]) ~= ARGV[3]) then
  return stored
end
redis.call('SET', KEYS[1], ARGV[2])
return false
