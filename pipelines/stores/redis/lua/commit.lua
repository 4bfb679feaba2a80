-- Store a run whole, where one server has every key.
--
-- KEYS: the topic's incarnations, the partition's watermark, its filled mark, its rules, its fill
-- epoch, the greatest row schema of the source, the source's hashes of rows, of states and of chunks,
-- and of each entity that joins or leaves groups those that `members_of.lua` says. ARGV: the life of
-- the server in which states were read, the incarnation, the offsets at which the run begins and
-- ends, whether a watermark and a filled mark must exist ("1" or ""), the id of the rules that decided
-- the run, the fill epoch as of which states were read ("" for none), the id of the row schema; then
-- lists, each its length and as many elements: entities to compare, the identity of the state that is
-- expected of each ("" for none), rows and states, each after its entity, new chunks, each after its
-- field, fields of chunks that are dropped; and what `members_of.lua` says.
--
-- Returns false when all of it is stored and the watermark is the run's end. Else nothing was written,
-- and it returns {"another life", the life}; {"recreated"} for a run of an incarnation that is over;
-- {"other rules"} where newer ones hold; {"moved", watermark} where the run does not begin at the
-- watermark, or where the watermark or the mark is missing; {"refilled", epoch} where a rebuild wrote
-- entities; {"schema"} for a run in an older row schema than one that was stored; {"conflict",
-- entities …} where the state of an entity is not the expected one.

local AT_ONCE = 7800 -- unpack() takes less than 8,000 values

local now = life()
if now ~= ARGV[1] then
  return {'another life', now}
end
local current = redis.call('LINDEX', KEYS[1], -1)
if current and current ~= ARGV[2] then
  return {'recreated'}
end
if others_hold(redis.call('GET', KEYS[4]), ARGV[7], ARGV[4]) then
  return {'other rules'}
end
local stored = redis.call('GET', KEYS[2])
local filled = redis.call('GET', KEYS[3])
if (ARGV[5] ~= '' and not stored) or (ARGV[6] ~= '' and filled ~= FILLED_MARK) then
  return {'moved', ''}
end
if stored and stored ~= ARGV[3] then
  return {'moved', stored}
end
local epoch = redis.call('GET', KEYS[5]) or ''
if epoch ~= ARGV[8] then
  return {'refilled', epoch}
end
local newest = tonumber(redis.call('GET', KEYS[6]) or 0)
if newest > tonumber(ARGV[9]) then
  return {'schema'}
end

-- Calls a command with the list that begins at ARGV[arg], at most AT_ONCE elements at once, an even
-- number; returns the index after the list, and the answers.
local function each(command, key, arg)
  local last = arg + tonumber(ARGV[arg])
  local answers = {}
  for first = arg + 1, last, AT_ONCE do
    answers[#answers + 1] =
      redis.call(command, key, unpack(ARGV, first, math.min(last, first + AT_ONCE - 1)))
  end
  return last + 1, answers
end

local arg, states = each('HMGET', KEYS[8], 10)
local conflicts = {'conflict'}
for i = 1, tonumber(ARGV[arg]) do
  local state = states[math.floor((i - 1) / AT_ONCE) + 1][(i - 1) % AT_ONCE + 1]
  if string.sub(state or '', 1, IDENTITY_BYTES) ~= ARGV[arg + i] then
    conflicts[#conflicts + 1] = ARGV[10 + i]
  end
end
if #conflicts > 1 then
  return conflicts
end
arg = arg + 1 + tonumber(ARGV[arg])

arg = each('HSET', KEYS[7], arg)
arg = each('HSET', KEYS[8], arg)
arg = each('HSET', KEYS[9], arg)
arg = each('HDEL', KEYS[9], arg)
local key = 10
while arg <= #ARGV do
  key, arg = belong(key, arg)
end
if newest < tonumber(ARGV[9]) then
  redis.call('SET', KEYS[6], ARGV[9])
end
redis.call('SET', KEYS[2], ARGV[4])
return false
